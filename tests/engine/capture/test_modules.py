"""Local modules travel as files, as they read now."""

import io
import os
import sys
import zipfile
from pathlib import Path

import pytest

from cnai.engine.capture import capture_cell, capture_function, modules, unzip
from cnai.errors import CaptureError


def write(files):
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def names(captured) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(captured.code_zip)).namelist() if captured.code_zip else []


MYLIB = "import deeper\nclass Thing:\n  def f(self): return f()\ndef f(): return deeper.value()"


@pytest.mark.parametrize(
    "cells",
    [
        ["import mylib", "def fit(): return mylib.f()"],
        ["from mylib import f", "def fit(): return f()"],
        ["def fit():\n  import mylib\n  return mylib.f()"],
        ["def fit():\n  def inner():\n    from mylib import f\n    return f()\n  return inner()"],
        ["import mylib\nthing = mylib.Thing()", "def fit(): return thing.f()"],
    ],
)
def test_travels_however_it_is_imported(notebook, in_rank, cells):
    write({"mylib.py": MYLIB, "deeper.py": "def value(): return 42", "other.py": ""})
    for cell in cells:
        notebook.cell(cell)
    captured = capture_function(notebook["fit"])
    outcome = in_rank(captured)
    assert (outcome.result, outcome.traceback) == (42, "")
    assert names(captured) == ["deeper.py", "mylib.py"]


def test_edits_are_seen_without_a_reload(notebook, in_rank):
    write({"edited.py": "value = 1"})
    notebook.cell("import edited\ndef fit(): return edited.value")
    assert in_rank(capture_function(notebook["fit"])).result == 1
    write({"edited.py": "value = 2  # changed"})
    assert in_rank(capture_function(notebook["fit"])).result == 2


def test_packages_come_whole_with_small_data_and_without_rubbish(notebook, in_rank):
    write(
        {
            "pack/__init__.py": "from pack.sub.core import f",
            "pack/sub/__init__.py": "",
            "pack/sub/core.py": "from pathlib import Path\nf = Path(__file__).with_name('labels.txt').read_text",
            "pack/lazy.py": "",
        }
    )
    Path("pack/sub/labels.txt").write_text("cat")
    Path("pack/big.bin").write_bytes(bytes(2_000_000))
    for rubbish in ("pack/.git", "pack/__pycache__", "pack/venv", "pack/node_modules"):
        Path(rubbish).mkdir()
        Path(rubbish, "x.py").write_text("")
    Path("pack/venv/pyvenv.cfg").write_text("")
    notebook.cell("def fit():\n  import pack\n  return pack.f()")
    captured = capture_function(notebook["fit"])
    assert names(captured) == [
        "pack/__init__.py",
        "pack/lazy.py",
        "pack/sub/__init__.py",
        "pack/sub/core.py",
        "pack/sub/labels.txt",
    ]
    assert len(captured.warnings) == 1 and "big.bin (2 MB)" in captured.warnings[0]
    assert in_rank(captured).result == "cat"


def test_folders_without_init_and_other_folders_of_sys_path(notebook, in_rank):
    write({"space/part.py": "value = 3", "src/extra.py": "value = 4"})
    sys.path.insert(0, str(Path("src").absolute()))
    captured = capture_cell("import space.part, extra\nx = space.part.value + extra.value", {}, returns=("x",))
    assert names(captured) == ["extra.py", "space/part.py"]
    assert in_rank(captured).result == {"x": 7}


def test_installed_packages_and_cnai_stay(notebook):
    write({"cnai.py": "raise SystemError"})
    captured = capture_cell("import json, cloudpickle, cnai, no_such_module", {})
    assert names(captured) == []


def test_a_local_folder_does_not_hide_an_installed_package(notebook):
    write({"cloudpickle/notes.py": ""})
    assert names(capture_cell("import cloudpickle", {})) == []


def test_same_files_same_bytes(notebook):
    write({"one.py": "a = 1", "two.py": "b = 2"})
    first = capture_cell("import one, two", {})
    os.utime("one.py", (1, 1))
    second = capture_cell("import one, two", {})
    assert (first.code_zip, first.code_hash) == (second.code_zip, second.code_hash)
    write({"one.py": "a = 3"})
    assert capture_cell("import one, two", {}).code_hash != first.code_hash


def test_too_much_is_refused_by_name(notebook, monkeypatch):
    monkeypatch.setattr(modules, "LIMIT_BYTES", 1_000_000)
    write({"huge.py": "#" * 1_000_001})
    with pytest.raises(CaptureError, match=r"more than 1 MB \(at .*huge\.py\); move data out"):
        capture_cell("import huge", {})


def test_a_broken_module_fails_in_the_rank_with_its_line(notebook, in_rank):
    write({"broken.py": "x = = 1"})
    trace = in_rank(capture_cell("import broken", {}, cell_name="Cell [2]")).traceback
    assert f'File "{Path("broken.py").absolute()}", line 1' in trace and "SyntaxError" in trace
    assert "importlib" not in trace


def test_unzip_appears_at_once_and_once(notebook, tmp_path):
    write({"one.py": "a = 1"})
    captured = capture_cell("import one", {})
    folder = unzip(captured.code_zip, tmp_path / "code" / captured.code_hash)
    stamp = (folder / "one.py").stat().st_mtime_ns
    assert unzip(captured.code_zip, folder) == folder
    assert (folder / "one.py").stat().st_mtime_ns == stamp
    assert [path.name for path in folder.parent.iterdir()] == [captured.code_hash]
    assert "one" not in sys.modules


def test_a_name_that_nobody_could_see_is_found_in_the_working_directory(notebook, in_rank, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "plugin_a.py").write_text("value = 9")
    source = "import importlib\nx = importlib.import_module('plugin_' + 'a').value"
    assert in_rank(capture_cell(source, {}, returns=("x",))).result == {"x": 9}


def test_a_deleted_working_directory_is_no_problem(notebook, in_rank, tmp_path):
    notebook.cell("def fit(): return 1")
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    assert in_rank(capture_function(notebook["fit"])).result == 1
