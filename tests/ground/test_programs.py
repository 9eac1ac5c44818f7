"""What is started or loaded by its name: all of it exists, and no other text names a module of ours."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from cnai import programs
from literals import ROOT, literals

MODULE = re.compile(r"(?<!custom\.)\bcnai(?:_hub)?(?:\.[a-z_][a-z0-9_]*)+")
HOMES = {"extensions/cnai/programs.py", "extensions/cnai/__init__.py"}  # the menu of cnai is a list of homes by itself
CLASSES = (programs.LOCAL_SPAWNER, programs.LOCAL_LOGIN, programs.CLUSTER_SPAWNER)
NAMED = [value for name, value in vars(programs).items() if name.isupper() and isinstance(value, str)]
MODULES = sorted({*NAMED} - set(CLASSES))


def _source(module):
    spec = find_spec(module)
    assert spec
    assert spec.origin
    return Path(spec.origin)


@pytest.mark.parametrize("module", MODULES)
def test_every_named_module_exists(module):
    assert _source(module).is_file()


@pytest.mark.parametrize("module", programs.STARTED)
def test_what_is_started_runs_as_a_program(module):
    source = _source(module)
    if source.name == "__init__.py":
        source = source.with_name("__main__.py")
    guards = [node.test for node in ast.parse(source.read_text()).body if isinstance(node, ast.If)]
    assert "__name__ == '__main__'" in {ast.unparse(test) for test in guards}


def test_what_a_name_is_used_for_is_there():
    assert callable(import_module(programs.ENGINE).main)
    assert callable(import_module(programs.NODE_WARM_UP).warm_up)
    assert callable(import_module(programs.SUPERVISOR_PRELOAD).dask_setup)
    assert callable(import_module(programs.NODE_PRELOAD).dask_setup)
    assert import_module(programs.QUESTIONS).routes
    assert import_module(programs.RUN).Run
    for backend in (programs.ENGINE, programs.ENGINE_POD):
        assert callable(import_module(backend).node_main)  # what a node's process imports
    for path in CLASSES:
        module, _, name = path.rpartition(".")
        assert isinstance(getattr(import_module(module), name), type)


def test_the_entry_points_are_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"cnai": f"{programs.COMMAND}:main", "cnai-hub": f"{programs.WORKBENCH}:main"}
    spawners = project["entry-points"]["jupyterhub.spawners"]
    assert spawners == {"cnai-local": ":".join(programs.LOCAL_SPAWNER.rsplit(".", 1))}
    for target in (*project["scripts"].values(), *spawners.values()):
        module, _, name = target.partition(":")
        assert callable(getattr(import_module(module), name))


def _is_ours(name):
    while "." in name:
        try:
            if find_spec(name):
                return True
        except ModuleNotFoundError:
            pass
        name = name.rpartition(".")[0]
    return False


def test_no_other_text_names_a_module():
    found = {
        (name, word)
        for name, texts in literals().items()
        if name not in HOMES
        for text in texts
        for word in MODULE.findall(text)
        if _is_ours(word)
    }
    assert found == set()


def test_what_other_files_start_is_declared():
    pages = [ROOT / "Makefile", *(ROOT / "images").rglob("Dockerfile"), *ROOT.glob("helm-values*.yaml")]
    started = {word for page in pages for word in re.findall(r"-m[ \",]+(cnai(?:_hub)?[\w.]*)", page.read_text())}
    assert programs.WORKBENCH in started
    assert started <= set(programs.STARTED)


def test_code_in_texts_imports_what_exists():
    """Tests, benchmarks and tools start programs from texts, which no import shows and no linter reads."""
    statement = re.compile(r"^\s*from (cnai(?:_hub)?(?:\.\w+)*) import (\w+)", re.MULTILINE)
    missing = set()
    for folder in ("tests", "bench", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
            for text in texts:
                for module, name in statement.findall(text) if isinstance(text, str) else ():
                    if not (hasattr(import_module(module), name) or find_spec(f"{module}.{name}")):
                        missing.add((path.name, module, name))
    assert missing == set()
