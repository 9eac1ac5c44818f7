"""Symbols: a pickle read as a tree that says what unpickling would do, without doing it."""

from __future__ import annotations

import hashlib
import io
import pickle
from typing import IO, TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Simplified = Mapping[tuple[str, str], Callable[[tuple[Any, ...]], tuple[Any, ...]]]
    """By module and name of a function: which of its arguments count."""
    _Seen = dict[int, tuple[int, Any]]
    """By id: an object's number, and the object, so that no other one gets its id."""


class Symbol:
    """An object in a pickle: how it is created, then what is done to it."""

    __slots__ = ("made", "steps")

    def __init__(self, *made: Any) -> None:
        self.made = made
        self.steps: list[Any] = []

    def append(self, item: Any) -> None:
        """Note an item of a list."""
        self.steps.append(("append", item))

    def add(self, item: Any) -> None:
        """Note an item of a set."""
        self.steps.append(("add", item))

    def __setitem__(self, key: Any, value: Any) -> None:
        self.steps.append(("set", key, value))


def read(file: IO[bytes] | bytes) -> Any:
    """Return the symbols of one pickle."""
    return _Reader(io.BytesIO(file) if isinstance(file, bytes) else file).load()


class _Reader(pickle._Unpickler):
    """Python's own unpickler, with symbols instead of classes and calls."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    if TYPE_CHECKING:
        stack: list[Any]

        def pop_mark(self) -> list[Any]: ...

    def find_class(self, module: str, name: str) -> Any:
        return Symbol("name", module, name)

    def persistent_load(self, pid: Any) -> Any:
        return Symbol("outside", pid)

    def _call(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = Symbol("call", self.stack[-1], args)

    def _new(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = Symbol("new", self.stack[-1], args)

    def _new_with_keywords(self) -> None:
        keywords, args = self.stack.pop(), self.stack.pop()
        self.stack[-1] = Symbol("new", self.stack[-1], args, keywords)

    def _set_state(self) -> None:
        state = self.stack.pop()
        self.stack[-1].steps.append(("state", state))

    def _drop(self) -> None:
        """Drop an object. A call whose result is dropped changes its first argument, as `_function_setstate` does."""
        if not self.stack:
            self.pop_mark()
            return
        dropped = self.stack.pop()
        if isinstance(dropped, Symbol) and dropped.made[0] == "call" and isinstance(dropped.made[2][0], Symbol):
            dropped.made[2][0].steps.append(dropped)

    dispatch.update(
        {
            pickle.REDUCE[0]: _call,
            pickle.NEWOBJ[0]: _new,
            pickle.NEWOBJ_EX[0]: _new_with_keywords,
            pickle.BUILD[0]: _set_state,
            pickle.POP[0]: _drop,
        }
    )


def digest(value: Any, simplified: Simplified, seen: _Seen | None = None) -> bytes:
    """Return a hash of symbols, the same in every process.

    The order of a dictionary counts because programs see it; the order of a set doesn't.
    """
    seen = {} if seen is None else seen
    found = hashlib.sha256()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if not isinstance(item, Symbol | list | dict | set | tuple | frozenset):
            found.update(_atom(item))
            continue
        if id(item) in seen:
            found.update(b"again %d;" % seen[id(item)][0])
            continue
        if not isinstance(item, tuple | frozenset):  # two equal ones can't be told apart
            seen[id(item)] = len(seen), item
        parts = _sorted(item, simplified, seen) if isinstance(item, set | frozenset) else _parts(item, simplified)
        found.update(b"%s %d;" % (type(item).__name__.encode(), len(parts)))
        waiting.extend(reversed(parts))
    return found.digest()


def _sorted(items: Iterable[Any], simplified: Simplified, seen: _Seen) -> list[bytes]:
    return sorted(digest(item, simplified, dict(seen)) for item in items)


def _parts(item: Any, simplified: Simplified) -> list[Any]:
    if isinstance(item, dict):
        return [part for pair in item.items() for part in pair]
    if not isinstance(item, Symbol):
        return list(item)
    how, *made = item.made
    if how == "call" and (simplify := simplified.get(_name(made[0]))):
        made[1] = simplify(made[1])
    return [how, *made, *item.steps]


def _name(function: Symbol) -> tuple[str, str]:
    """Return module and name of a function; cloudpickle gets the types of Python itself by a call."""
    how, *made = function.made
    if how == "name":
        return made[0], made[1]
    return _name(made[0])[0], made[1][0]


def _atom(item: Any) -> bytes:
    content = item if isinstance(item, bytes | bytearray) else _text(item).encode("utf-8", "surrogatepass")
    return b"%s %d:%s;" % (type(item).__name__.encode(), len(content), content)


def _text(item: Any) -> str:
    if type(item) is int:
        return hex(item)  # str() refuses long ones
    return item if isinstance(item, str) else repr(item)
