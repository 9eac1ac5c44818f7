"""Functions travel with what they use, or say which variable can't."""

import functools
import json
import pickle
import re
import subprocess
import sys

import pytest

from cnai.engine.capture import capture_function, load, suspects
from cnai.errors import CaptureError, EngineError, UsageError

TRAVELS = {
    "plain": (["def fit(x): return x + 1"], (1,), {}, 2),
    "other cell's function": (["def double(x): return 2 * x", "def fit(x): return double(x)"], (3,), {}, 6),
    "other cell's class": (["class Net:\n  def out(self): return 7", "def fit(): return Net().out()"], (), {}, 7),
    "instance as argument": (["class Net:\n  w = 5", "net = Net()\ndef fit(n): return n.w"], ("net",), {}, 5),
    "closure": (["def make(k):\n  def fit(x): return k * x\n  return fit", "fit = make(3)"], (2,), {}, 6),
    "lambda": (["fit = lambda x: x * 10"], (2,), {}, 20),
    "partial": (["import functools\ndef f(a, b): return a - b\nfit = functools.partial(f, b=1)"], (5,), {}, 4),
    "bound method": (["class T:\n  w = 2\n  def go(self, x): return self.w * x\nfit = T().go"], (4,), {}, 8),
    "callable object": (["class T:\n  def __call__(self, x): return -x\nfit = T()"], (4,), {}, -4),
    "keywords and defaults": (["def fit(a, *, lr=0.5): return a * lr"], (4,), {"lr": 2}, 8),
    "cached": (["import functools\n@functools.cache\ndef two(): return 2", "def fit(): return two()"], (), {}, 2),
    "module": (["import math", "def fit(): return math.sqrt(16)"], (), {}, 4.0),
    "dataclass": (
        ["import dataclasses\n@dataclasses.dataclass\nclass C:\n  a: int = 3", "def fit(): return C().a"], (), {}, 3,
    ),
    "globals shared by cells": (
        ["count = 0\ndef bump():\n  global count\n  count += 1", "def fit():\n  bump()\n  return count"], (), {}, 1,
    ),
    "pickle finds the notebook's classes": (
        ["class Net: w = 4", "import pickle\ndef fit(): return pickle.loads(pickle.dumps(Net())).w"], (), {}, 4,
    ),
    "cached recursion": (
        ["import functools\n@functools.cache\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)",
         "def fit(): return fib(30)"], (), {}, 832040,
    ),
    "types": (
        ["import typing, enum, collections\nUser = typing.NewType('User', int)\nP = typing.ParamSpec('P')\n"
         "T = typing.TypeVar('T')\nTs = typing.TypeVarTuple('Ts')\nclass Box(typing.Generic[T]): pass\n"
         "class Can(typing.Protocol):\n  def f(self): ...\nColor = enum.Enum('Color', 'RED')\n"
         "Point = collections.namedtuple('Point', 'x')\nclass Row(typing.NamedTuple):\n  a: int",
         "def fit(u: User = 1, b: Box[int] = None, c: typing.Callable[P, User] = None, can: Can = None):\n"
         "  return (User(3), User.__name__, P.__name__, Ts.__name__, T.__name__, Box[User].__args__[0] is User,\n"
         "    fit.__annotations__['u'] is User, Color.RED.name, Point(1).x, Row(2).a, User.__supertype__ is int)"],
        (), {}, (3, "User", "P", "Ts", "T", True, True, "RED", 1, 2, True),
    ),
    "singleton": (
        ["class Missing:\n  def __reduce__(self): return 'MISSING'\nMISSING = Missing()\n"
         "def fit(x=MISSING): return x is MISSING, [MISSING].index(x)"], (), {}, (True, 0),
    ),
    "singledispatch": (
        ["import functools\n@functools.singledispatch\ndef say(x): return 'something'\n"
         "@say.register\ndef _(x: int): return 'a number'\n"
         "@say.register\ndef _(x: list): return [say(each) for each in x]",
         "def fit(): return say([1, None]), say.__name__"], (), {}, (["a number", "something"], "say"),
    ),
    "methods of functools": (
        ["import functools\nclass C:\n  @functools.cached_property\n  def a(self): return 1\n"
         "  @functools.singledispatchmethod\n  def b(self, x): return 2\n"
         "  @b.register\n  def _(self, x: str): return 3\n"
         "  @functools.lru_cache\n  def c(self): return 4\nc = C()",
         "def fit(): return c.a, vars(c)['a'], c.b(1), c.b('x'), c.c()"], (), {}, (1, 1, 2, 3, 4),
    ),
    "by name and by value": (
        ["import logging, weakref, contextlib\nlog = logging.getLogger('mine')\n"
         "@contextlib.contextmanager\ndef opened(): yield 5\n"
         "def fit():\n  with opened() as x: return log.name, x"], (), {}, ("mine", 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TRAVELS)
def test_travels(notebook, in_rank, case):
    cells, args, kwargs, expected = TRAVELS[case]
    for cell in cells:
        notebook.cell(cell)
    args = tuple(notebook[arg] if isinstance(arg, str) else arg for arg in args)
    outcome = in_rank(capture_function(notebook["fit"], args, kwargs))
    assert (outcome.result, outcome.traceback) == (expected, "")


def test_result_of_a_notebook_class_comes_back_as_that_class(notebook, in_rank):
    notebook.cell("class Net:\n  w = 1\ndef fit(): return Net()")
    assert isinstance(in_rank(capture_function(notebook["fit"])).result, notebook["Net"])


LOCK = "import threading\nlock = threading.Lock()\n"
HOLDER = "import threading\nclass Holder:\n  def __init__(self): self.lock = threading.Lock()\n  def go(self): pass\n"
SLOTS = "import threading\nclass S:\n  __slots__ = ('lock',)\n  def __init__(self): self.lock = threading.Lock()\n"
ODD = "class Odd:\n  def __reduce__(self): raise RuntimeError('never\\nme')\n"
STAYS = {
    "in a global": (LOCK + "def fit(): return lock", "fit uses 'lock' (_thread.lock)"),
    "inside an object": (HOLDER + "model = Holder()\ndef fit(): return model", "fit uses 'model.lock'"),
    "inside containers": (LOCK + "box = {'a': [1, lock]}\ndef fit(): return box", "fit uses \"box['a'][1]\""),
    "slots": (SLOTS + "s = S()\ndef fit(): return s", "fit uses 's.lock'"),
    "generator": ("data = (i for i in range(3))\ndef fit(): return list(data)", "pass a list"),
    "open file": ("f = open('out.txt', 'w')\ndef fit(): f.write('x')", "open the file inside fit"),
    "used by a helper": (LOCK + "def helper(): return lock\ndef fit(): return helper()", "helper uses 'lock'"),
    "inner function": (LOCK + "def fit():\n  def inner(): return lock\n  return inner()", "fit uses 'lock'"),
    "closure": (LOCK + "def make(held):\n  def fit(): return held\n  return fit\nfit = make(lock)", "fit uses 'held'"),
    "default": (LOCK + "def fit(a=lock): return a", "fit uses 'a'"),
    "argument": (LOCK + "def fit(guard=None): return guard", "fit uses 'guard'"),
    "method of a class": (
        LOCK + "class Net:\n  def out(self): return lock\ndef fit(): return Net()",
        "out uses 'lock'",
    ),
    "bound method": (HOLDER + "fit = Holder().go", "go uses 'self.lock'"),
    "partial": (LOCK + "import functools\ndef f(a, b): pass\nfit = functools.partial(f, 1, b=lock)", "f uses 'b'"),
    "own reduction fails": (
        ODD + "odd = Odd()\ndef fit(): return odd",
        "'odd' (__main__.Odd), which can't travel to a rank: never me",
    ),
    "local": (
        "import threading\nlocal = threading.local()\ndef fit(): return local",
        "fit uses 'local' (_thread._local)",
    ),
    "context variable": (
        "import contextvars\nvar = contextvars.ContextVar('v')\ndef fit(): return var.get()",
        "fit uses 'var' (_contextvars.ContextVar)",
    ),
    "database": ("import sqlite3\ndb = sqlite3.connect(':memory:')\ndef fit(): return db", "connect inside fit"),
    "event": (
        "import threading\nstop = threading.Event()\ndef fit(): return stop",
        "fit uses 'stop' (threading.Event)",
    ),
    "pool": (
        "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1)\ndef fit(): return pool",
        "fit uses 'pool' (concurrent.futures.thread.ThreadPoolExecutor)",
    ),
    "weak values": (
        "import weakref\nseen = weakref.WeakValueDictionary()\ndef fit(): return seen",
        "fit uses 'seen' (weakref.WeakValueDictionary), which can't travel to a rank: cannot pickle 'weakref",
    ),
    "weak set": (
        "import weakref\nseen = weakref.WeakSet()\ndef fit(): return seen",
        "use a set, or create it inside fit",
    ),
    "weak reference": ("import weakref\nclass C: pass\nc = C()\nr = weakref.ref(c)\ndef fit(): return r()", "uses 'r'"),
    "compiled": (
        "import torch\n@torch.compile(backend='eager')\ndef my_loss(x): return x\ndef fit(): return my_loss(1)",
        "fit uses 'my_loss' (function), which can't travel to a rank",
    ),
    "compiled, advice": (
        "import torch\nloss = torch.compile(lambda x: x, backend='eager')\ndef fit(): return loss(1)",
        "call torch.compile inside fit",
    ),
    "library object in an object": (
        "import tempfile\nclass Box: pass\nbox = Box()\nbox.items = {'a': tempfile.TemporaryFile()}\n"
        "def fit(): return box",
        "fit uses \"box.items['a']\"",
    ),
    "author's object in a library's": (
        HOLDER + "from torch import nn\nclass Net(nn.Module):\n  def __init__(self):\n    super().__init__()\n"
        "    self.layer = nn.Linear(1, 1)\n    self.layer.extra = Holder()\nnet = nn.Sequential(Net())\n"
        "def fit(): return net",
        "fit uses 'net.0.layer.extra.lock'",
    ),
    "cycle": (LOCK + "box = []\nbox += [box, lock]\ndef fit(): return box", "fit uses 'box"),
}


@pytest.mark.parametrize("case", STAYS)
def test_names_the_variable_that_cannot_travel(notebook, case):
    cell, expected = STAYS[case]
    notebook.cell(cell)
    with pytest.raises(CaptureError) as caught:
        capture_function(notebook["fit"], (notebook["lock"],) if case == "argument" else ())
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_warns_of_a_captured_value_above_ten_megabytes(notebook):
    notebook.cell("table = bytes(11_000_000)\nsmall = bytes(9_000_000)\ndef fit(extra=None): return len(table)")
    assert capture_function(notebook["fit"]).warnings == (
        "fit sends 'table' to every rank, 11 MB; load it inside fit or pass the path of a file",
    )
    argument = capture_function(notebook["fit"], (), {"extra": b"x" * 12_000_000}).warnings
    assert [warning.split(" to ")[0] for warning in argument] == ["fit sends 'extra'", "fit sends 'table'"]
    notebook.cell("import os\nother = os.urandom(9_000_000)\ndef fit(): return len(small) + len(other)")
    assert "in many variables" in capture_function(notebook["fit"]).warnings[0]
    notebook.cell("def fit(): return len(small)")
    assert capture_function(notebook["fit"]).warnings == ()


WRONG = {
    "not callable": (3, (), {}, "target must be a function or the path of a script; given: 3 (int)"),
    "unknown argument": ("fit", (), {"epohcs": 5}, "fit(epochs, lr=0.1) can't be called as fit(epohcs=5)"),
    "missing argument": ("fit", (), {}, "missing a required argument: 'epochs'"),
    "too many": ("fit", (1, 2, 3), {}, "fit(epochs, lr=0.1) can't be called as fit(1, 2, 3): too many"),
    "long values are cut": ("fit", (list(range(1000)), 1, 1), {}, "…, 1, 1)"),
    "async": ("later", (), {}, "later is an async function"),
    "generator": ("stream", (), {}, "stream is an async function or a generator"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_one_line(notebook, case):
    target, args, kwargs, expected = WRONG[case]
    notebook.cell("def fit(epochs, lr=0.1): pass\nasync def later(): pass\ndef stream(): yield 1")
    with pytest.raises(UsageError) as caught:
        capture_function(notebook[target] if isinstance(target, str) else target, args, kwargs)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "name"),
    [("fit = lambda: 1", "lambda"), ("def _fit(): pass\nfit = _fit", "fit"), ("def größe(): pass\nfit = größe", "gr-e"),
     ("import functools\ndef f(a): pass\nfit = functools.partial(f, 1)", "f")],
)  # fmt: skip
def test_target_is_named_for_people_and_fits_a_run(notebook, source, name):
    notebook.cell(source)
    target = capture_function(notebook["fit"]).target
    assert target.name == name
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", target.name)


def test_source_says_where_the_code_stood(notebook):
    notebook.cell("x = 1")
    notebook.cell("\ndef fit(): pass")
    assert capture_function(notebook["fit"]).target.source == "Cell [2], line 2"
    assert capture_function(functools.lru_cache(notebook["fit"])).target.source == "Cell [2], line 2"
    assert capture_function(json.dumps, ({},)).target.source.partition(", line ")[0].endswith("json/__init__.py")


def test_same_code_same_hash_other_code_other_hash(notebook):
    notebook.cell("def fit(x=1): return x")
    first = capture_function(notebook["fit"]).code_hash
    assert capture_function(notebook["fit"], (2,)).code_hash == first
    notebook.cell("def fit(x=1): return x")
    assert capture_function(notebook["fit"]).code_hash == first
    notebook.cell("def fit(x=1): return x + 1")
    assert capture_function(notebook["fit"]).code_hash != first


@pytest.mark.parametrize("key", ["python", "cloudpickle"])
def test_other_versions_in_the_rank_are_one_clear_line(notebook, key):
    notebook.cell("def fit(): return 1")
    header, _, body = capture_function(notebook["fit"]).payload.partition(b"\n")
    other = json.dumps({**json.loads(header), key: "0.1"}).encode() + b"\n" + body
    with pytest.raises(EngineError, match=r"0\.1.*use the same image for both"):
        load(other, None)


def test_running_leaves_the_process_as_it_was(notebook):
    notebook.cell("import sys\ndef fit(): sys.path.insert(0, 'x')")
    path, main = list(sys.path), sys.modules["__main__"]
    load(capture_function(notebook["fit"]).payload, None)()
    assert (sys.path, sys.modules["__main__"]) == (path, main)


def test_weighing_keeps_nothing():
    scale = suspects._Scale()
    scale.write(b"12345")
    assert scale.weight == 5


@pytest.mark.usefixtures("starts_children")
def test_capture_loads_nothing_heavy():
    loaded = "import sys, cnai.engine.capture; print(*{m.partition('.')[0] for m in sys.modules})"
    names = set(
        subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not names & {"torch", "dask", "distributed", "IPython", "numpy", "ipywidgets"}


SHELL = """
import json, pickle, sys
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in json.loads(sys.argv[1]):
    shell.run_cell(cell, store_history=True).raise_error()
"""


def test_names_of_ipython_are_those_of_python(tmp_path, in_rank, starts_children):
    cells = [
        "import json\ndef fit():\n  display('shown', 3)\n  with open('f', 'w') as f: f.write('1')\n"
        "  return get_ipython() is None, open.__module__, exit.__module__, type(get_ipython()).__name__",
        "import pickle, pathlib\nfrom cnai.engine.capture import capture_cell, capture_function\n"
        "source = 'import io\\ndisplay(7)\\nx = get_ipython() is None, open is io.open'\n"
        "cell = capture_cell(source, globals(), returns=('x',))\n"
        f"pathlib.Path({str(tmp_path / 'out')!r}).write_bytes(pickle.dumps([capture_function(fit), cell]))",
    ]
    subprocess.run([sys.executable, "-c", SHELL, json.dumps(cells)], check=True, cwd=tmp_path, timeout=120)
    fit, cell = map(in_rank, pickle.loads((tmp_path / "out").read_bytes()))
    assert (fit.traceback, fit.output) == ("", "shown 3\n")
    assert fit.result == (True, "io", "_sitebuiltins", "NoneType")
    assert (cell.traceback, cell.output, cell.result) == ("", "7\n", {"x": (True, True)})
