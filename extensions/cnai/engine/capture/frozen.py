"""Frozen: the objects in a payload. Each kind of target knows how to run in a rank, in its own `__main__`."""

from __future__ import annotations

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

    def run(self, main: ModuleType) -> None:
        """Execute the script as `python path argv…` does."""
        sys.argv = [self.path, *self.argv]
        # Position 1 comes after the frozen local modules, so that those win.
        sys.path.insert(1, os.path.dirname(self.path))  # noqa: PTH120 # a str, as Python itself inserts it
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
