"""Training and publishing find the same local files, which are those that Python would import."""

import io
import os
import sys
import warnings
import zipfile
from pathlib import Path

import pytest

from cnai.engine.capture import capture_cell
from cnai.errors import CaptureError, UsageError
from cnai.publishing import apps, localfiles


def write(files):
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, Path):
            Path(name).symlink_to(text)
        else:
            Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())


def trained(source) -> set[str]:
    """Return what goes to the ranks."""
    captured = capture_cell(source, {})
    return set(zipfile.ZipFile(io.BytesIO(captured.code_zip)).namelist()) if captured.code_zip else set()


def published(source) -> set[str]:
    """Return what goes into an app."""
    content = {"cells": [{"cell_type": "code", "source": source}]}
    return {file.relative_to(Path.cwd()).as_posix() for file in localfiles.modules(Path.cwd(), content)}


RELATIVE = {
    "pack/__init__.py": "from .data import x\nfrom . import part\nfrom .. import other",
    "pack/data.py": "",
    "pack/part.py": "import used",
    "data.py": "",
    "part.py": "",
    "other.py": "",
    "used.py": "",
}
SCENARIOS = {
    "a package's own": (RELATIVE, "import pack", {"pack/__init__.py", "pack/data.py", "pack/part.py", "used.py"}),
    "a module of a package": (
        RELATIVE,
        "from pack.part import x",
        {*map("pack/{}.py".format, ["__init__", "data", "part"]), "used.py"},
    ),
    "without __init__": (
        {"space/part.py": "import used", "space/note.txt": "", "used.py": ""},
        "from space import part",
        {"space/part.py", "used.py"},
    ),
    "with small data": (
        {"pack/__init__.py": "", "pack/labels.txt": "cat", "pack/big.bin": bytes(1_000_001)},
        "import pack",
        {"pack/__init__.py", "pack/labels.txt"},
    ),
    "in functions, classes and branches": (
        {f"{name}.py": "" for name in "abcdef"},
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import a\n"
        "try:\n  import b\nexcept ImportError:\n  import c\n"
        "def f():\n  def g(): from d import x\nclass C:\n  import e\n",
        {"a.py", "b.py", "c.py", "d.py", "e.py"},
    ),
    "nothing that stands in text": ({"a.py": ""}, "x = 'import a'  # import a", set()),
    "a module and a package of one name": ({"one.py": "", "one/__init__.py": ""}, "import one", {"one/__init__.py"}),
    "names of the standard library": (
        {"random.py": "", "time.py": "", "json/__init__.py": ""},
        "import random, time, json",
        set(),
    ),
    "names of cnai": ({"cnai.py": "", "cnai_hub/__init__.py": ""}, "import cnai, cnai_hub", set()),
    "an installed package and a folder": ({"cloudpickle/notes.py": ""}, "import cloudpickle", set()),
    "an installed package and a module": ({"iniconfig.py": ""}, "import iniconfig", {"iniconfig.py"}),
    "nobody's": ({}, "import no_such_module, no.such", set()),
    "links": (
        {
            "../shared/mod.py": "",
            "../shared/sub/core.py": "import used",
            "used.py": "",
            "linked.py": Path("../shared/mod.py"),
            "pack/__init__.py": "",
            "pack/sub": Path("../../shared/sub"),
            "pack/again": Path("."),
            "pack/gone.txt": Path("nowhere"),
        },
        "import linked, pack.sub.core",
        {"linked.py", "pack/__init__.py", "pack/sub/core.py", "used.py"},
    ),
    "no environments, caches and hidden files": (
        {
            "pack/__init__.py": "",
            **{f"pack/{name}/x.py": "" for name in ("__pycache__", "node_modules", "site-packages", ".venv", "env")},
            "pack/env/pyvenv.cfg": "",
            "pack/.#x.py": "",
            "pack/old.pyc": "",
        },
        "import pack",
        {"pack/__init__.py"},
    ),
    "a neighbor that is no Python": (
        {"broken.py": "import used\nx = = 1", "null.py": b"\0", "used.py": ""},
        "import broken, null",
        {"broken.py", "null.py"},
    ),
    "an old encoding": (
        {"old.py": "# coding: latin-1\nimport used  # ü".encode("latin-1"), "used.py": ""},
        "import old",
        {"old.py", "used.py"},
    ),
    "many imports": ({"last.py": ""}, "".join(f"import m{n}\n" for n in range(300)) + "import last", {"last.py"}),
    "a compiled module": ({"fast.abi3.so": bytes(1_000_001)}, "import fast", {"fast.abi3.so"}),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("found", [trained, published])
def test_what_code_needs(notebook, found, scenario):
    files, source, expected = SCENARIOS[scenario]
    write(files)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found(source) == expected


def test_of_two_folders_that_are_one_package_the_first_counts(notebook):
    write({"space/part.py": "# 1", "src/space/part.py": "# 2", "src/space/more.py": ""})
    sys.path.insert(1, str(Path("src").absolute()))
    archive = zipfile.ZipFile(io.BytesIO(capture_cell("import space", {}).code_zip))
    assert {name: archive.read(name) for name in archive.namelist()} == {"space/part.py": b"# 1", "space/more.py": b""}


def test_only_what_lies_in_its_folder_is_published(notebook):
    write({"near.py": "", "src/inner.py": "", "../far/outer.py": ""})
    sys.path[1:1] = [str(Path("src").absolute()), str(Path("../far").resolve())]
    assert trained("import near, inner, outer") == {"near.py", "inner.py", "outer.py"}
    assert published("import near, inner, outer") == {"near.py", "src/inner.py"}


@pytest.mark.parametrize("magic", ["%%cnai train --ranks 2", "%%time", "\n%%capture out\n%%time"])
def test_cells_whose_magics_run_python(notebook, magic):
    write({"used.py": ""})
    assert published(f"{magic}\nimport used\n%matplotlib inline\nawait used.f()") == {"used.py"}


def test_a_module_that_cannot_be_read_is_told(notebook):
    write({"odd.py": Path("/proc/self/mem")})
    with pytest.raises(CaptureError, match=r"odd\.py can't be read: .*; make it readable"):
        trained("import odd")
    with pytest.raises(UsageError, match=r"odd\.py can't be read: .*; make it readable"):
        apps._files(Path("a.ipynb"), {"cells": [{"cell_type": "code", "source": "import odd"}]}, [], print)


def test_too_many_modules_for_an_app(notebook, monkeypatch):
    monkeypatch.setattr(localfiles, "MOST_FILES", 1)
    write({"one.py": "import two", "two.py": ""})
    with pytest.raises(UsageError, match="with the modules it imports the app has 2 files"):
        apps._files(Path("a.ipynb"), {"cells": [{"cell_type": "code", "source": "import one"}]}, [], print)


def test_an_included_folder_brings_no_environment(notebook):
    write({"data/a.csv": "1", "data/env/pyvenv.cfg": "", "data/env/lib.py": "", "data/link": Path(os.devnull)})
    assert localfiles.included(Path.cwd(), ["data"], tell=print) == {Path.cwd() / "data" / "a.csv"}
