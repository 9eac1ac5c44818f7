"""In a rank the code is the run's copy, and its paths are those of the author's project."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cnai.engine.capture import capture_cell, capture_function, capture_script, load, unzip

MODULE = """
import inspect
from pathlib import Path
HERE = Path(__file__).parent
def f():
    return 'frozen', inspect.getsource(f), (HERE / 'data.txt').read_text(), (HERE / 'out.txt').write_text('1')
def fails():
    raise ValueError('as frozen')
"""

MAKES = """
import importlib, pack
from pathlib import Path
for name in ("pack/made.py", "also.py"):
    Path(__file__).parent.joinpath(name).write_text("value = 7")
importlib.invalidate_caches()
import also, pack.made
print(pack.made.value, also.value)
"""


def write(files):
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


@pytest.mark.parametrize("module", ["beside", "pack.part"])
def test_edits_do_not_matter_and_files_are_where_the_author_put_them(notebook, in_rank, module):
    write({"beside.py": MODULE, "pack/__init__.py": "", "pack/part.py": MODULE})
    folder = Path(f"{module.replace('.', '/')}.py").absolute().parent
    (folder / "data.txt").write_text("as it is now")
    notebook.cell(f"import {module}\ndef fit(): return {module}.f()\ndef bad(): {module}.fails()")
    fit, bad = capture_function(notebook["fit"]), capture_function(notebook["bad"])
    write(
        {"pack/__init__.py": "raise SystemError", "pack/part.py": "raise SystemError", "beside.py": "raise SystemError"}
    )
    frozen, source, data, _ = in_rank(fit).result
    assert (frozen, data) == ("frozen", "as it is now") and source.startswith("def f():\n    return 'frozen'")
    assert (folder / "out.txt").read_text() == "1"
    trace = in_rank(bad).traceback
    assert f'File "{folder / module.rpartition(".")[2]}.py", line 8, in fails\n    raise ValueError' in trace


def test_a_project_that_the_node_lacks_runs_from_the_copy_and_says_so(notebook, in_rank):
    write({"project/beside.py": "import plain\nhere = __file__", "project/plain.py": "", "project/labels.txt": ""})
    write({"project/s.py": "import beside\nprint(beside.here)"})
    captured = capture_script("project/s.py")
    shutil.rmtree("project")
    outcome = in_rank(captured)
    copy = Path(outcome.output.strip())
    assert (copy.name, copy.parent.name) == ("beside.py", captured.code_hash)
    folder = Path("project").absolute()
    assert outcome.errors == (
        f"cnai: {folder} does not exist on this node, so modules run from the run's copy;"
        f" files that {folder}/beside.py reads or writes beside its __file__ are in {copy.parent}\n"
    )
    Path("project").mkdir()  # another folder of this name, such as an empty mount point
    assert in_rank(captured).errors == outcome.errors


def test_modules_that_are_written_while_the_run_goes_on_are_found(notebook, in_rank):
    write({"pack/__init__.py": "", "s.py": MAKES})
    assert in_rank(capture_script("s.py")).output == "7 7\n"


def test_argv_path_and_main_are_those_of_python(notebook, in_rank, tmp_path):
    write({"real/s.py": "import sys\nprint(sys.argv, sys.path[0], __file__)"})
    Path("link.py").symlink_to("real/s.py")
    here = Path.cwd()
    assert in_rank(capture_script("link.py", ("a",))).output == f"['link.py', 'a'] {here / 'real'} {here / 'link.py'}\n"


def test_modules_stay_with_a_notebook_that_changes_its_folder(notebook, in_rank):
    write({"one/helper.py": "import deeper\ndef f(): return deeper.value", "one/deeper.py": "value = 'of one'"})
    write(
        {"one/data/helper.py": "raise SystemError", "one/space/part.py": "value = 3", "deeper.py": "raise SystemError"}
    )
    sys.path[0] = ""
    notebook.cell("import os\nos.chdir('one')\nimport helper, space.part\nos.chdir('data')")
    notebook.cell("def fit(): return helper.f(), space.part.value")
    outcome = in_rank(capture_function(notebook["fit"]))
    assert (outcome.result, outcome.traceback) == (("of one", 3), "")
    assert in_rank(capture_cell("import helper\nx = helper.f()", {}, returns=("x",))).result == {"x": "of one"}


def test_afterwards_this_process_imports_as_before(notebook, tmp_path):
    write({"beside.py": "value = 1", "s.py": "import beside"})
    captured = capture_script("s.py")
    before = list(sys.path_hooks), list(sys.path)
    load(captured.payload, unzip(captured.code_zip, tmp_path / "code"))()
    assert (sys.path_hooks, sys.path) == before
    del sys.modules["beside"]
    write({"beside.py": "value = 23"})
    os.utime("beside.py", (1, 1))
    import beside

    assert beside.value == 23


def test_a_payload_of_an_older_version_runs_from_the_copy(notebook, in_rank):
    write({"beside.py": "value = 1"})
    notebook.cell("import beside\ndef fit(): return beside.__file__")
    captured = capture_function(notebook["fit"])
    header, _, body = captured.payload.partition(b"\n")
    older = {key: value for key, value in json.loads(header).items() if key not in {"roots", "path"}}
    outcome = in_rank(replace(captured, payload=json.dumps(older).encode() + b"\n" + body))
    assert Path(outcome.result).parent.name == captured.code_hash
