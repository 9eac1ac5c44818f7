"""Frozen: the objects in a payload. Each kind of target knows how to run in a rank, in its own `__main__`."""

from __future__ import annotations

import builtins
import functools
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from cnai.engine.capture import sources
from cnai.errors import ResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def main_globals() -> dict[str, Any]:
    """Return the globals of the current `__main__`; payloads refer to this function by name."""
    return vars(sys.modules["__main__"])


def cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """Rebuild a function that `functools.lru_cache` wraps, with an empty cache."""
    return functools.lru_cache(**parameters)(function)


class Main(ModuleType):
    """The `__main__` of a rank."""

    def __init__(self) -> None:
        super().__init__("__main__")
        vars(self)["__builtins__"] = builtins  # exec would set their dict instead


def cached_attribute(function: Callable[..., Any], name: str) -> Any:
    """Rebuild a `functools.cached_property`."""
    found = functools.cached_property(function)
    found.attrname = name
    return found


def register(dispatcher: Any, registry: dict[type, Callable[..., Any]]) -> None:
    """Give a function of `functools.singledispatch` its implementations."""
    for kind, function in registry.items():
        dispatcher.register(kind, function)


def named_type(kind: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any] | None = None) -> Any:
    """Rebuild a NewType or a type parameter of the notebook."""
    found = kind(*args, **(keywords or {}))
    found.__module__ = "__main__"
    return found


def builtin(name: str) -> Any:
    """Return what a name of IPython is in a rank."""
    return get_ipython if name == "get_ipython" else getattr(builtins, name)


def get_ipython() -> None:
    """Return None: a rank has no notebook around it."""


def display(*objects: object, **_: object) -> None:
    """Print objects, as IPython's `display` does where there is no notebook."""
    print(*objects)  # noqa: T201 # it is the rank's output


@contextmanager
def main_module(main: ModuleType) -> Iterator[None]:
    """Make a module the `__main__` of this process until the block ends."""
    before = sys.modules["__main__"]
    sys.modules["__main__"] = main
    try:
        yield
    finally:
        sys.modules["__main__"] = before


class Frozen(Protocol):
    """A target."""

    def run(self, main: ModuleType) -> Any:
        """Run the target with a module as its `__main__`, and return its result."""

    def define(self, main: ModuleType) -> None:
        """Define in a module what pickled data of the running target refers to."""


@dataclass(frozen=True)
class FrozenFunction:
    """A callable with its arguments."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def run(self, _: ModuleType) -> Any:
        """Call the function and return its result."""
        vars(builtins).setdefault("display", display)  # IPython has it there
        return self.function(*self.args, **self.kwargs)

    def define(self, main: ModuleType) -> None:
        """Do nothing: unpickling the function has defined the names that it uses."""


@dataclass(frozen=True)
class FrozenCell:
    """A cell's body with the names it reads from the notebook."""

    source: str
    shown: str
    namespace: dict[str, Any]
    returns: tuple[str, ...]

    def run(self, main: ModuleType) -> dict[str, Any]:
        """Execute the cell and return the requested names with their values."""
        names = vars(main)
        names.update(self.namespace)
        vars(builtins).setdefault("display", display)
        sources.remember(self.shown, self.source)
        exec(compile(body(self.source), self.shown, "exec", dont_inherit=True), names)  # noqa: S102 # it is the user's cell
        for name in self.returns:
            if name not in names:
                raise ResultError(
                    f"the cell ended without a value for {name!r}; assign it on every path, or don't return it"
                )
        return {name: names[name] for name in self.returns}

    def define(self, main: ModuleType) -> None:
        """Define the names that the cell reads from the notebook, without running the cell."""
        vars(main).update(self.namespace)


@dataclass(frozen=True)
class FrozenScript:
    """A script's source from when the run was submitted, with its arguments."""

    source: str
    path: str
    argv: tuple[str, ...]
    given: str = ""
    """The path as the author wrote it; runs of older versions don't know it."""

    def run(self, main: ModuleType) -> None:
        """Execute the script as `python given argv…` does."""
        sys.argv = [self.given or self.path, *self.argv]
        folder = os.path.dirname(os.path.realpath(self.path))  # noqa: PTH120 # a str, as Python itself inserts it
        if sys.path[0] != folder:
            sys.path.insert(0, folder)
        try:
            self.define(main)
        except SystemExit as end:
            if end.code not in (None, 0):
                raise

    def define(self, main: ModuleType) -> None:
        """Execute the script with the name of the module, which a guard of its main program asks for."""
        main.__file__ = self.path
        sources.remember(self.path, self.source)
        exec(compile(self.source, self.path, "exec", dont_inherit=True), vars(main))  # noqa: S102 # it is the user's script


def body(source: str) -> str:
    """Return a cell with its `%%cnai` line emptied, so that line numbers still match the notebook."""
    first, newline, rest = source.partition("\n")
    return newline + rest if first.startswith("%%") else source
