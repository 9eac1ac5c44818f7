"""Fingerprints: the same for the same code with the same values, in every process; different for everything else."""

# ruff: noqa: E501 - a case per line
from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType

import pytest

from cnai.engine.capture import capture_function, capture_script, fingerprint
from cnai.engine.capture.function import unsteady
from cnai.spec import Ranks, RunSpec, Target
from engine.capture.conftest import Notebook

TARGET = Target("function", "fit")


def of(captured, **spec):
    return fingerprint(captured.payload, captured.code_zip, RunSpec(target=captured.target, **spec))


@pytest.fixture
def fit(notebook, monkeypatch):
    """The fingerprint of `fit` in a new notebook with these cells."""

    def found(*cells, args=(), kwargs=None, **spec):
        module = ModuleType("__main__")
        monkeypatch.setitem(sys.modules, "__main__", module)
        fresh = Notebook(module)
        for cell in cells:
            fresh.cell(cell)
        target = fresh["fit"]
        return of(capture_function(target, args, kwargs), **spec)

    return found


SHOWS = "def fit(): return x"
MODEL = "class Model:\n    def __init__(self, lr): self.lr = lr\n    def fit(self): return self.lr"
DECORATED = """
import functools
def times(n):
    def wrap(f):
        @functools.wraps(f)
        def inner(): return n * f()
        return inner
    return wrap
@times({n})
def fit(): return 1
"""
DATA = """
import dataclasses, enum
class Kind(enum.Enum):
    A = {a}
@dataclasses.dataclass
class Setting:
    lr: float = {lr}
    kind: Kind = Kind.A
x = Setting()
"""
OTHER = {
    "global": (["x = 0.1", SHOWS], ["x = 0.9", SHOWS]),
    "global of a function it calls": (["x = 1\ndef f(): return x", "def fit(): return f()"], ["x = 2\ndef f(): return x", "def fit(): return f()"]),
    "closure": (["def make(x):\n    return lambda: x\nfit = make(1)"], ["def make(x):\n    return lambda: x\nfit = make(2)"]),
    "default": (["def fit(x=1): return x"], ["def fit(x=2): return x"]),
    "keyword default": (["def fit(*, x=1): return x"], ["def fit(*, x=2): return x"]),
    "partial": (["import functools\ndef f(x): return x\nfit = functools.partial(f, x=1)"], ["import functools\ndef f(x): return x\nfit = functools.partial(f, x=2)"]),
    "self": ([MODEL, "fit = Model(1).fit"], [MODEL, "fit = Model(2).fit"]),
    "callable object": (["class F:\n    def __call__(self): return self.x", "fit = F(); fit.x = 1"], ["class F:\n    def __call__(self): return self.x", "fit = F(); fit.x = 2"]),
    "attribute of a class": (["class C: x = 1", "def fit(): return C.x"], ["class C: x = 2", "def fit(): return C.x"]),
    "method": (["class C:\n    def f(self): return 1", "def fit(): return C().f()"], ["class C:\n    def f(self): return 2", "def fit(): return C().f()"]),
    "attribute of a function": (["def fit(): return fit.x", "fit.x = 1"], ["def fit(): return fit.x", "fit.x = 2"]),
    "nested function": (["def fit():\n    def f(): return 1\n    return f()"], ["def fit():\n    def f(): return 2\n    return f()"]),
    "operator": (["def fit(a=1): return a + 1"], ["def fit(a=1): return a - 1"]),
    "name": (["def fit(): return len"], ["def fit(): return max"]),
    "decorator": ([DECORATED.format(n=1)], [DECORATED.format(n=2)]),
    "function in a list": (["x = [lambda: 1]", SHOWS], ["x = [lambda: 2]", SHOWS]),
    "cached function": (["import functools\n@functools.cache\ndef x(): return 1", SHOWS], ["import functools\n@functools.cache\ndef x(): return 2", SHOWS]),
    "dataclass": ([DATA.format(lr=1, a=1), SHOWS], [DATA.format(lr=2, a=1), SHOWS]),
    "enum": ([DATA.format(lr=1, a=1), SHOWS], [DATA.format(lr=1, a=2), SHOWS]),
    "type": (["x = 1", SHOWS], ["x = True", SHOWS]),
    "number": (["x = 0.0", SHOWS], ["x = -0.0", SHOWS]),
    "order of a dict": (["x = dict(a=1, b=2)", SHOWS], ["x = dict(b=2, a=1)", SHOWS]),
    "set": (["x = {1, 2}", SHOWS], ["x = {1, 3}", SHOWS]),
    "set inside": (["x = {(1, frozenset({2}))}", SHOWS], ["x = {(1, frozenset({3}))}", SHOWS]),
    "numpy": (["import numpy as np; x = np.arange(3)", SHOWS], ["import numpy as np; x = np.arange(3); x[2] = 9", SHOWS]),
    "dtype": (["import numpy as np; x = np.zeros(2)", SHOWS], ["import numpy as np; x = np.zeros(2, 'f4')", SHOWS]),
    "tensor": (["import torch; x = torch.arange(3.)", SHOWS], ["import torch; x = torch.arange(3.) + 1", SHOWS]),
    "module": (["import torch; torch.manual_seed(0); x = torch.nn.Linear(2, 2)", SHOWS], ["import torch; torch.manual_seed(1); x = torch.nn.Linear(2, 2)", SHOWS]),
    "the same list twice": (["a = [1]; x = [a, a]", SHOWS], ["x = [[1], [1]]", SHOWS]),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER)
def test_another_value_or_other_code_is_another_run(fit, case):
    one, other = OTHER[case]
    assert fit(*one) != fit(*other)
    assert fit(*one) == fit(*one)
    assert fit(*other) == fit(*other)


SAME = {
    "comments, blank lines": (["def fit(): return 1"], ["# moved down\n\n\ndef fit():  # a comment\n\n    return 1"]),
    "number of the cell": (["def fit(): return 1"], ["1", "2", "def fit(): return 1"]),
    "what else its cell defines": (["def fit(): return 1"], ["y = 3\ndef other(): return 2\ndef fit(): return 1"]),
    "globals that it doesn't read": (["x = 1; y = 1", SHOWS], ["x = 1; y = 2", SHOWS]),
    "order of a set": (["x = {'a', 'b', 'c'}", SHOWS], ["x = set(); x.update('cba')", SHOWS]),
    "classes again": ([MODEL, "fit = Model(1).fit"], [MODEL, MODEL, "fit = Model(1).fit"]),
    "interned strings": (["x = ['ab', 'ab']", SHOWS], ["x = [''.join('ab'), ''.join('ab')]", SHOWS]),
    "long numbers, lone surrogates": (["x = [10**5000, '\\udc80']", SHOWS], ["x = [10**5000, '\\udc80']", SHOWS]),
    "what contains itself": (["x = []; x.append(x)", SHOWS], ["x = []; x.append(x)", SHOWS]),
    "functions that call each other": (
        ["def f(n): return fit()", "def fit(): return f(1) if 0 else 1"],
        ["def f(n): return fit()", "\ndef fit(): return f(1) if 0 else 1"],
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_the_same_code_and_values_are_the_same_run(fit, case):
    one, other = SAME[case]
    assert fit(*one) == fit(*other)


def test_arguments_count_and_not_their_order(fit):
    takes = "def fit(lr, epochs=1, **more): return lr"
    assert fit(takes, kwargs={"lr": 1, "epochs": 2}) == fit(takes, kwargs={"epochs": 2, "lr": 1})
    assert fit(takes, kwargs={"lr": 1}) != fit(takes, kwargs={"lr": 2})
    assert fit(takes, args=(1,)) != fit(takes, args=(2,))
    # A function sees the order of these.
    assert fit(takes, args=(1,), kwargs={"a": 1, "b": 2}) != fit(takes, args=(1,), kwargs={"b": 2, "a": 1})


def test_ranks_image_and_environment_count(fit):
    code = "def fit(): return 1"
    assert fit(code, env={"A": "1", "B": "2"}) == fit(code, env={"B": "2", "A": "1"}, retries=3, name="other")
    found = {fit(code), fit(code, env={"A": "1"}), fit(code, ranks=Ranks(2, 2)), fit(code, image="other")}
    assert len(found) == 4
    assert fit(code, ranks=Ranks(1, 2)) == fit(code, ranks=Ranks(2, 2))  # starts with as many as fit


def test_local_modules_count_without_their_comments(fit, notebook, tmp_path):
    file = tmp_path / "notebook" / "helper_of_fit.py"
    found = []
    for text in ("X = 1\n", "# only a comment\n\nX = 1\n", "X = 2\n"):
        file.write_text(text)
        found.append(fit("def fit():\n    import helper_of_fit\n    return helper_of_fit.X"))
    assert found[0] == found[1] != found[2]


def test_scripts(tmp_path):
    def script(name, text, *argv):
        file = tmp_path / name
        file.write_text(text)
        return of(capture_script(file, argv))

    assert script("a.py", "print(1)\n") == script("a.py", "# comment\nprint(1)\n")
    assert script("a.py", "print(1)\n") != script("a.py", "print(2)\n")
    assert script("a.py", "print(1)\n", "--lr", "1") != script("a.py", "print(1)\n", "--lr", "2")


def test_what_is_pickled_differently_each_time_is_named(fit):
    class Moment:
        def __reduce__(self):
            return (str, (os.urandom(8).hex(),))

    def train(lr, when):
        return lr

    assert unsteady(train, (), {"lr": 1, "when": Moment()}) == "when"
    assert unsteady(train, (), {"lr": 1, "when": {"a", "b"}}) == ""


VALUES = """
import abc, collections, dataclasses, enum, functools, sys, types, typing
import numpy, torch
from cnai.engine.capture import capture_function, fingerprint
from cnai.spec import RunSpec
torch.manual_seed(0)
class Base(abc.ABC):
    @property
    def one(self): return 1
class Model(Base):
    __slots__ = ("lr",)
    names = {"a", "b", "c"}
    def __init__(self, lr): self.lr = lr
class Kind(enum.Enum):
    A = 1
T = typing.TypeVar("T")
Point = collections.namedtuple("Point", "x y")
@dataclasses.dataclass
class Setting(typing.Generic[T]):
    lr: float = 1
    tags: set = dataclasses.field(default_factory=lambda: {"x", "y", "z"})
def wrap(f):
    @functools.wraps(f)
    def inner(*args): return f(*args)
    return inner
@wrap
def helper(x): return x in {"a", "b", "c"}
sys.setrecursionlimit(3000)
deep = []
for _ in range(200): deep = [deep]
values = [
    Model(1), Kind.A, Setting(), Point(1, 2), {"k": {"a", "b", "c"}}, frozenset("abc"), Model, Setting, lambda: Kind,
    numpy.arange(5), numpy.array(["a", None], object), numpy.random.default_rng(1), torch.arange(5), torch.float16,
    torch.nn.Linear(2, 2), torch.optim.SGD([torch.nn.Parameter(torch.ones(2))]), torch.Size([1]),
    types.SimpleNamespace(a=1), collections.OrderedDict(a=1),
    collections.defaultdict(list, a=[1]), collections.deque([1]), collections.Counter("aab"), range(3), 1j, b"x",
    functools.partial(helper, 1), functools.lru_cache(helper), deep, torch.nn, print, ...,
    numpy.float32(1), slice(1), Exception("x"),
]
def fit(value): return helper(value), values
for value in values:
    captured = capture_function(lambda value: helper(value), (value,))
    print(type(value).__name__, fingerprint(captured.payload, captured.code_zip, RunSpec(target=captured.target)))
"""


@pytest.mark.usefixtures("starts_processes")
def test_every_process_finds_the_same(tmp_path):
    (tmp_path / "values.py").write_text(VALUES)
    first, second = (
        subprocess.run(
            [sys.executable, "values.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        ).stdout.splitlines()
        for seed in ("1", "2")
    )
    assert len(first) > 30
    assert [one for one, other in zip(first, second, strict=True) if one != other] == []
