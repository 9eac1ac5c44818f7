"""The tree is what the README and the design say: map, menu, floors, sizes, words."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cnai
import tree
from cnai import backends
from cnai.grammar import verbs

ROOT = Path(__file__).resolve().parents[1]
CNAI = ROOT / "extensions" / "cnai"

TRACKED = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
]
MODULES = [path for path in TRACKED if path.suffix == ".py" and path.exists()]
TEXTS = [path for path in TRACKED if path.suffix not in {".png", ".lock"} and path.is_file()]
PAGES = [path for path in TEXTS if path.suffix == ".md"]


def test_the_menu():
    more = {"CnaiError", "Context", "Run", "RunSpec", "context", "load_ipython_extension", "unload_ipython_extension"}
    assert cnai.__all__ == sorted({*more, *verbs.VERBS})
    assert {name: getattr(cnai, name) for name in cnai.__all__}
    assert dir(cnai) == cnai.__all__
    with pytest.raises(AttributeError, match="module 'cnai' has no attribute 'trian'"):
        _ = cnai.trian


@pytest.mark.parametrize("verb", verbs.VERBS)
def test_every_verb_is_a_typed_function(verb):
    function = getattr(cnai, verb)
    assert inspect.getdoc(function)
    signature = inspect.signature(function)
    assert [name for name, parameter in signature.parameters.items() if parameter.annotation is parameter.empty] == []
    assert signature.return_annotation is not signature.empty


# What only a face has: it shows something, or waits, or is another function of the object that comes back.
OF_FACES = {
    "train": {"target", "returns", "wait", "dry_run"} | {flag.dest for flag in verbs.SPEC_FLAGS},
    "attach": {"read_only", "wait"},
    "logs": {"follow"},
    "cluster": {"action", "flavor", "nodes"},
}


@pytest.mark.parametrize("verb", verbs.VERBS)
def test_a_verb_takes_the_same_words_everywhere(verb):
    words = {argument.dest for argument in verbs.VERBS[verb].arguments} - OF_FACES.get(verb, set())
    assert words <= set(inspect.signature(getattr(cnai, verb)).parameters)


@pytest.mark.usefixtures("starts_children")
@pytest.mark.parametrize("statement", ["import cnai", "import IPython; from cnai.faces import load_ipython_extension"])
def test_importing_loads_nothing_heavy(statement):
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "dask", "distributed", "kubernetes", "ipywidgets", "anywidget", "numpy", "psutil"} & set(
        loaded
    )


ABOVE_BACKENDS = ("run", "publishing", "lifecycle", "faces")


def _decides_by_backend(node):
    """Tell whether code asks which backend it has, instead of asking the backend."""
    if isinstance(node, ast.Compare | ast.MatchValue):
        return any(isinstance(part, ast.Constant) and part.value in backends.NAMES for part in ast.walk(node))
    names = {getattr(node, "attr", ""), getattr(node, "id", "")}
    return "self_healing" in names


MATCH = "match x:\n case 'debug': pass"


@pytest.mark.parametrize("code", ["x == 'debug'", "'local' != x", "x in {'local'}", "b.self_healing", MATCH])
def test_a_decision_by_backend_is_seen(code):
    assert any(map(_decides_by_backend, ast.walk(ast.parse(code))))


def test_nothing_above_the_backends_asks_which_one_it_has():
    above = [path for path in MODULES if any(path.is_relative_to(CNAI / floor) for floor in ABOVE_BACKENDS)]
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in above
        for node in ast.walk(ast.parse(path.read_text()))
        if _decides_by_backend(node)
    ]
    assert found == []


def test_backends_are_what_mypy_sees():
    # What the API server answers has no types.
    of_backends = [path for path in MODULES if path.is_relative_to(CNAI / "backends") and path.stem != "api"]
    tricks = {"cast", "import_module"}
    assert [
        f"{path.relative_to(ROOT)}: {word}"
        for path in of_backends
        for word in {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)} & tricks
    ] == []


def test_few_records_are_dicts():
    found = [path for path in MODULES if path.is_relative_to(CNAI / "backends") or path.is_relative_to(CNAI / "run")]
    assert sum(path.read_text().count("dict[str, Any]") for path in found) <= 20


def test_the_map_in_the_readme_is_current():
    assert tree.tree() in (ROOT / "README.md").read_text()


def test_the_map_knows_every_folder():
    folders = {path.relative_to(ROOT).parts[0] for path in TRACKED if len(path.relative_to(ROOT).parts) > 1}
    assert {folder for folder in folders if folder[0] != "."} <= {name.partition("/")[0] for name in tree.FOLDERS}


def test_docs_name_every_verb():
    reference = (ROOT / "docs" / "reference.md").read_text()
    assert [verb for verb in verbs.VERBS if f"\n## {verb}\n" not in reference] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_no_module_is_too_long():
    shipped = [
        path for path in MODULES if path.is_relative_to(ROOT / "extensions") or path.is_relative_to(ROOT / "hub")
    ]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in shipped}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
    assert sorted(lengths.values())[len(lengths) // 2] <= 150


def test_every_module_says_what_it_is():
    assert [
        str(path.relative_to(ROOT))
        for path in MODULES
        if not path.is_relative_to(ROOT / "tests")
        and not ast.get_docstring(ast.parse(path.read_text()))
        and path.stat().st_size
    ] == []


def test_names_of_test_modules_are_unique():
    names = [path.name for path in MODULES if path.name.startswith("test_")]
    assert {name for name in names if names.count(name) > 1} == set()


def test_no_module_is_called_after_nothing():
    assert [path for path in MODULES if path.stem in {"utils", "util", "common", "helpers", "misc"}] == []


# Split, so that this file doesn't contain them.
FORBIDDEN = ["TO" + "DO", "FIX" + "ME", "/wo" + "rk/", "pypi" + ".org", "npm" + "js.org", "pythonhosted" + ".org"]


@pytest.mark.parametrize("word", FORBIDDEN)
def test_words_that_stay_out(word):
    assert [str(path.relative_to(ROOT)) for path in TEXTS if word in path.read_text(errors="ignore")] == []


def test_locks_pin_every_package_by_hash_and_name_no_host():
    for lock in (ROOT / "locks").glob("*.lock"):
        text = lock.read_text()
        assert "://" not in text
        for entry in re.split(r"\n(?=\S)", text.strip()):
            assert re.match(r"[A-Za-z0-9_.-]+==\S+ .*--hash=sha256:", entry, re.DOTALL), entry
    assert '"resolved"' not in (ROOT / "package-lock.json").read_text()
