"""Tracebacks show the author's lines, what they called, and nothing of ours."""

import json
import re
import subprocess
import sys
from pathlib import Path

from cnai.engine.capture import capture_function, load, user_traceback


def places(trace: str) -> list[str]:
    return re.findall(r'File "([^"]+)", line \d+, in (\S+)', trace)


def test_cells_by_name_with_their_lines(notebook, in_rank):
    notebook.cell("def inner(x):\n    return 1 / x")
    notebook.cell("def fit(x):\n    y = 1\n    return inner(x)")
    outcome = in_rank(capture_function(notebook["fit"], (0,)))
    assert places(outcome.traceback) == [("Cell [2]", "fit"), ("Cell [1]", "inner")]
    assert "    return inner(x)\n" in outcome.traceback and "    return 1 / x\n" in outcome.traceback
    assert outcome.traceback.endswith("ZeroDivisionError: division by zero\n")


def test_library_frames_that_the_author_called_stay_and_long_ways_are_cut(notebook, in_rank):
    notebook.cell("import json\ndef fit(): return json.loads('{')")
    assert [function for _, function in places(in_rank(capture_function(notebook["fit"])).traceback)] == [
        "fit", "loads", "decode", "raw_decode",
    ]  # fmt: skip
    notebook.cell(
        "import copy\nclass No:\n  def __deepcopy__(self, memo): raise ValueError('no')\n"
        "def fit(): return copy.deepcopy([[[[No()]]]])"
    )
    trace = in_rank(capture_function(notebook["fit"])).traceback
    assert re.search(r", in … \d+ more\n", trace)
    assert places(trace)[0] == ("Cell [2]", "fit") and places(trace)[-1] == ("Cell [2]", "__deepcopy__")


def test_causes_are_cleaned_too(notebook, in_rank):
    notebook.cell("def fit():\n  try: {}['a']\n  except KeyError as e: raise ValueError('bad') from e")
    trace = in_rank(capture_function(notebook["fit"])).traceback
    assert places(trace) == [("Cell [1]", "fit"), ("Cell [1]", "fit")]
    assert "direct cause" in trace


def test_local_modules_by_their_own_names(notebook, in_rank):
    Path("helper_lib.py").write_text("def f():\n    raise ValueError('from the module')\n")
    notebook.cell("import helper_lib\ndef fit(): helper_lib.f()")
    expected = [("Cell [1]", "fit"), (str(Path("helper_lib.py").absolute()), "f")]
    assert places(in_rank(capture_function(notebook["fit"])).traceback) == expected


def test_debug_shows_everything(notebook):
    notebook.cell("def fit(): raise ValueError")
    try:
        load(capture_function(notebook["fit"]).payload, None)()
    except ValueError as error:
        assert "frozen.py" in user_traceback(error, debug=True)
        assert "frozen.py" not in user_traceback(error, debug=False)


def test_without_a_line_of_the_author_only_the_error_remains():
    try:
        load(b'{"python": "0", "cloudpickle": "0", "sources": {}}\n', None)
    except Exception as error:
        error.__traceback__ = error.__traceback__.tb_next
        assert user_traceback(error, debug=False).startswith("cnai.errors.EngineError: the notebook runs Python 0")


KERNEL = """
import json, sys
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell
from ipykernel.compiler import XCachingCompiler
shell = InteractiveShell.instance()
shell.compile = XCachingCompiler()
for cell in json.loads(sys.argv[1]):
    shell.run_cell(cell, store_history=True).raise_error()
"""


def test_a_real_shell_names_its_cells(tmp_path, in_rank):
    from cnai.engine.capture import Captured

    cells = [
        "def inner(): raise ValueError('deep')",
        "def fit(): inner()",
        "import pickle, pathlib\nfrom cnai.engine.capture import capture_function\n"
        f"pathlib.Path({str(tmp_path / 'out')!r}).write_bytes(pickle.dumps(capture_function(fit)))",
    ]
    subprocess.run([sys.executable, "-c", KERNEL, json.dumps(cells)], check=True, cwd=tmp_path, timeout=120)
    import pickle

    captured: Captured = pickle.loads((tmp_path / "out").read_bytes())
    assert captured.target.source == "Cell [2], line 1"
    trace = in_rank(captured).traceback
    assert places(trace) == [("Cell [2]", "fit"), ("Cell [1]", "inner")]
    assert "    def inner(): raise ValueError('deep')\n" in trace
