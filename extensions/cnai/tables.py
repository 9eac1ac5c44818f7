"""Tables: reads TOML, JSON or YAML strictly into frozen dataclasses; a mistake is one sentence with its key's path."""

from __future__ import annotations

import difflib
import math
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from cnai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    Path = tuple[str | int, ...]

_Made = TypeVar("_Made")

_WORDS: dict[type, str] = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


class Mistake(UsageError):
    """An invalid value at `path` below the table that was read."""

    def __init__(self, path: Path, why: str, under: str = "") -> None:
        self.path, self.why = path, why
        super().__init__(f"{shown(path, under)} {why}".strip())

    def below(self, *path: str | int) -> Mistake:
        """Return the same mistake with a path from further up."""
        return Mistake((*path, *self.path), self.why)


def shown(path: Path, under: str = "") -> str:
    """Return a path as text: `catalog.flavor[2].price_per_hour`."""
    text = under
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def build(cls: type[_Made], table: Any, path: Path = (), *, lenient: bool = False) -> _Made:
    """Return a dataclass from a table; raises Mistake, also for a Mistake of its `__post_init__`, with the full path.

    `lenient` ignores unknown keys, also in nested tables.
    """
    if not isinstance(table, dict):
        raise Mistake(path, f"must be a table; given: {table!r}")
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    for key in () if lenient else table:
        if key not in known:
            raise Mistake((*path, key), unknown(key, known))
    for name, field in known.items():
        if name not in table and field.default is MISSING and field.default_factory is MISSING:
            raise Mistake((*path, name), "is missing")
    types = get_type_hints(cls)
    values = {
        key: _value(value, types[key], (*path, key), lenient=lenient) for key, value in table.items() if key in known
    }
    try:
        return cls(**values)
    except Mistake as mistake:
        raise mistake.below(*path) from None


def unknown(given: Any, allowed: Mapping[str, Any]) -> str:
    """Return the message for an unknown key, with the allowed keys and the closest of them."""
    close = difflib.get_close_matches(str(given), allowed, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"is unknown{hint} (allowed: {', '.join(sorted(allowed))})"


def _value(value: Any, kind: Any, path: Path, *, lenient: bool) -> Any:
    if isinstance(kind, UnionType):
        if value is None and NoneType in get_args(kind):
            return None
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
    if get_origin(kind) is tuple:
        return _several(value, get_args(kind)[0], path, lenient=lenient)
    if get_origin(kind) is dict:
        return _mapping(value, get_args(kind)[1], path, lenient=lenient)
    if is_dataclass(kind):
        return value if isinstance(value, kind) else build(kind, value, path, lenient=lenient)  # type: ignore[arg-type]
    if get_origin(kind) is Literal:
        return _one_of(value, get_args(kind), path)
    return value if kind is object else _plain(value, kind, path)


def _plain(value: Any, kind: Any, path: Path) -> Any:
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise Mistake(path, f"must be {_WORDS[kind]}; given: {value!r}")
    if kind in {int, float} and not 0 <= value < math.inf:
        raise Mistake(path, f"must be 0 or more; given: {value}")
    return value


def _several(value: Any, kind: Any, path: Path, *, lenient: bool) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise Mistake(path, f"must be a list; given: {value!r}")
    return tuple(_value(each, kind, (*path, number), lenient=lenient) for number, each in enumerate(value))


def _mapping(value: Any, kind: Any, path: Path, *, lenient: bool) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Mistake(path, f"must be a table; given: {value!r}")
    return {key: _value(each, kind, (*path, key), lenient=lenient) for key, each in value.items()}


def _one_of(value: Any, allowed: tuple[Any, ...], path: Path) -> Any:
    if value not in allowed:
        raise Mistake(path, f"must be {' or '.join(map(str, allowed))}; given: {value!r}")
    return value
