"""A cell takes along what it reads before it writes it, and nothing else."""

import pytest

from cnai.engine.capture import capture_cell, flow
from cnai.errors import CaptureError, UsageError

READS = {
    "a = b": {"b"},
    "a = 1\nprint(a)": {"print"},
    "a = a + 1": {"a"},
    "a += 1": {"a"},
    "a: int = b": {"int", "b"},
    "import torch.nn as nn\nnn.Linear": set(),
    "import os.path\nos": set(),
    "from m import *\nx": {"x"},
    "for i in rows: total = i\nprint(total)": {"rows", "print", "total"},
    "for i in rows: pass\nelse: x = i": {"rows", "i"},
    "while go: x = 1\nx": {"go", "x"},
    "if c: x = 1\nelse: x = 2\nx": {"c"},
    "if c: x = 1\nx": {"c", "x"},
    "if c: x = 1\nelse: raise E\nx": {"c", "E"},
    "x = 1 if c else y": {"c", "y"},
    "c and (x := 1)\nx": {"c", "x"},
    "(x := f()) and g(x)": {"f", "g"},
    "try: x = 1\nexcept E as e: x = e\nx": {"E"},
    "try: x = 1\nexcept E: pass\nx": {"E", "x"},
    "try: x = 1\nfinally: y = x\ny": set(),
    "try: x = 1\nexcept* E: pass": {"E"},
    "with o() as f: y = f\ny": {"o"},
    "match p:\n  case {'a': q, **r}: s = (q, r)\n  case [t, *u] as v if t: s = u": {"p"},
    "del x": {"x"},
    "x = 1\ndel x\nx": {"x"},
    "def f(): return x\nx = 1\nf()": set(),
    "def f(): return x\nf()\nx = 1": {"x"},
    "def f(): return x": {"x"},
    "def f(): return g()\ndef g(): return y\nf()\ny = 1": {"y"},
    "def f(n): return f(n - 1)\nf(2)": set(),
    "def f():\n  global z\n  z = 1": set(),
    "def f(a, b=c, *d, e: t = g) -> r: return a, h": {"c", "t", "g", "r", "h"},
    "async def f(): return x": {"x"},
    "@deco\ndef f(): pass": {"deco"},
    "if c:\n  x = 1\n  f = lambda: 0\ndef g(): return x\nif c:\n  x = 2\n  g()\nelse:\n  g()": {"c", "x"},
    "f = lambda a: a + k": {"k"},
    "k = 1\nf = lambda: k": set(),
    "class A(Base): w = q\nclass B(A):\n  def m(self): return later\nlater = 1\nB().m()": {"Base", "q"},
    "class A:\n  w = 1\n  v = w\nw": {"w"},
    "class A:\n  def m(self): return B\nclass B: pass\nA": set(),
    "[i * k for i in rows if i > low]": {"rows", "k", "low"},
    "{a: b for a, b in pairs}": {"pairs"},
    "sum(i for i in rows)\ni": {"rows", "sum", "i"},
    "i = 1\n[i for i in rows]\ni": {"rows"},
    "[(y := i) for i in rows]\nprint(y)": {"rows", "print"},
    "f'{name:{width}}'": {"name", "width"},
    "x[i] = y\nobj.a = z": {"x", "i", "y", "obj", "z"},
}


@pytest.mark.parametrize("source", READS)
def test_names_read_before_written(source):
    assert flow.names(flow.parse(source, "Cell"))[0] == READS[source]


def test_runs_as_main_with_what_it_reads(notebook, in_rank):
    notebook.cell(
        "import math\nscale = 2\nunused = open('log', 'w')\nclass Net: w = 3\ndef area(r): return math.pi * r * scale"
    )
    source = "%%cnai train --return total,kind\nkind = __name__\ntotal = round(area(Net.w)) + scale"
    outcome = in_rank(capture_cell(source, notebook.names, returns=("total", "kind"), cell_name="Cell [7]"))
    assert (outcome.traceback, outcome.result) == ("", {"total": 21, "kind": "__main__"})


def test_functions_of_the_notebook_see_what_the_cell_assigns(notebook, in_rank):
    notebook.cell("scale = 2\ndef scaled(x): return scale * x")
    outcome = in_rank(
        capture_cell("old = scaled(1)\nscale = 10\nnew = scaled(1)", notebook.names, returns=("old", "new"))
    )
    assert outcome.result == {"old": 2, "new": 10}


def test_a_failing_line_is_shown_with_the_number_it_has_in_the_notebook(notebook, in_rank):
    outcome = in_rank(capture_cell("%%cnai train\nx = 1\nx / 0\n", notebook.names, cell_name="Cell [3]"))
    assert outcome.traceback.splitlines()[:3] == [
        "Traceback (most recent call last):", '  File "Cell [3]", line 3, in <module>', "    x / 0",
    ]  # fmt: skip


def test_unknown_names_fail_where_python_would(notebook, in_rank):
    outcome = in_rank(capture_cell("if False: missing\nprint('so far')\nmissing", notebook.names))
    assert outcome.output == "so far\n"
    assert outcome.traceback.endswith("NameError: name 'missing' is not defined\n")


def test_returns_only_what_got_a_value(notebook, in_rank):
    assert "without a value for 'x'" in in_rank(capture_cell("if False: x = 1", {}, returns=("x",))).traceback
    with pytest.raises(
        UsageError, match=r"assigns no 'los' to return; did you mean 'loss'\? \(it assigns loss, model\)"
    ):
        capture_cell("loss = model = 1", {"los": 2}, returns=("los",))


def test_tensors_come_back_plain(notebook, in_rank):
    notebook.cell("import torch")
    source = "w = torch.ones(2, requires_grad=True)\nloss = (w * 2).sum()\nboth = {'a': [loss]}"
    result = in_rank(capture_cell(source, notebook.names, returns=("w", "loss", "both"))).result
    assert (result["loss"].item(), result["loss"].requires_grad, result["w"].requires_grad) == (4.0, False, True)
    assert result["both"]["a"][0].grad_fn is None


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("%%cnai train\n%time f()", 2),
        ("x = 1\n!ls", 2),
        ("?print", 1),
        ("print?", 1),
        ("files = !ls", 1),
        ("for i in x:\n    %time i", 2),
        ("x = %sql select", 1),
        ("a, b = !ls", 1),
    ],
)
def test_magics_are_refused_with_their_line(source, line):
    with pytest.raises(UsageError, match=rf"line {line} of the cell, .* is a magic or shell command"):
        capture_cell(source, {})


@pytest.mark.parametrize("source", ["x = (7\n     % 4)\ns = '''\n%time\n!ls\n'''", "x = 1 if 2 else 3  # why?"])
def test_python_that_looks_like_a_magic_runs(source, in_rank):
    assert in_rank(capture_cell(source, {}, returns=("x",))).result["x"] in {1, 3}


@pytest.mark.parametrize("source", ["%%cnai train\nx = = 1", "\nreturn 1", "\nawait f()"])
def test_syntax_errors_are_pythons_own(source):
    with pytest.raises(SyntaxError) as caught:
        capture_cell(source, {}, cell_name="Cell [4]")
    assert (caught.value.filename, caught.value.lineno) == ("Cell [4]", 2)


def test_names_the_variable_that_cannot_travel(notebook):
    notebook.cell("import threading\nlock = threading.Lock()\nbig = bytes(11_000_000)\ndef helper(): return lock")
    with pytest.raises(CaptureError, match="the cell uses 'lock'"):
        capture_cell("lock.acquire()", notebook.names)
    with pytest.raises(CaptureError, match="helper uses 'lock'"):
        capture_cell("helper()", notebook.names)
    assert capture_cell("len(big)", notebook.names).warnings[0].startswith("the cell sends 'big' to every rank")
