"""Fingerprint: says whether two runs have the same result, because the same code ran with the same values.

It is read from the bytes that travel, without executing them. Comments, line numbers, the number and the file of a cell
and the order of keyword arguments don't count; names of functions and docstrings do, because programs can read them.
"""

from __future__ import annotations

import inspect
import io
import zipfile
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import cloudpickle

from cnai.engine.capture import payload
from cnai.engine.capture.symbols import digest, read
from cnai.engine.records import Fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnai.spec import RunSpec

    Arguments = tuple[Any, ...]


def fingerprint(data: bytes, code_zip: bytes, spec: RunSpec) -> Fingerprint:
    """Return the fingerprint of a run with this payload. Raises anything if another version wrote the payload."""
    root = read(data[data.index(b"\n") + 1 :])
    [(_, state)] = root.steps
    values = {key: _hash(value) for key, value in state.items() if key not in {"source", "path", "argv"}}
    if "argv" in state:
        values = {"function": _of_source(state["source"]), "args": _hash(state["argv"])}
    conditions = (spec.target.kind, spec.ranks.maximum, spec.image, sorted(spec.env.items()))
    return Fingerprint(
        code=values.pop("function"),
        arguments=_hash(values),
        modules=_of_modules(code_zip) if code_zip else "",
        conditions=_hash(conditions),
    )


def is_steady(value: Any) -> bool:
    """Tell whether a value is pickled alike each time; otherwise no later value can be found to be the same."""
    return _hash(_symbols(value)) == _hash(_symbols(value))


def _hash(value: Any) -> str:
    return digest(value, _counting()).hex()[:32]


@lru_cache(maxsize=1000)
def _of_source(source: str | bytes) -> str:
    """Return a hash of a file's code, of its bytes if it isn't valid Python."""
    try:
        code = compile(source, "", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        return _hash(source)
    return _hash(_symbols(code))


def _of_modules(code_zip: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(code_zip)) as archive:
        contents = {name: archive.read(name) for name in sorted(archive.namelist())}
    return _hash({name: _of_source(text) if name.endswith(".py") else text for name, text in contents.items()})


def _symbols(value: Any) -> Any:
    with io.BytesIO() as file:
        payload.Pickler(file).dump(value)
        return read(file.getvalue())


@cache
def _counting() -> dict[tuple[str, str], Callable[[Arguments], Arguments]]:
    """Return, for functions that rebuild objects, which of their arguments count."""
    own = cloudpickle.cloudpickle.__name__
    with_ids = ("_make_skeleton_class", "_make_skeleton_enum", "_make_typevar")
    return {
        **{(own, name): _without_id(getattr(cloudpickle.cloudpickle, name)) for name in with_ids},
        (own, "CodeType"): _without_lines,
        (own, "_function_setstate"): _without("_cloudpickle_submodules"),
        (own, "_class_setstate"): _without("__firstlineno__"),
        ("torch.storage", "_load_from_bytes"): _without_addresses,
    }


def _without_id(function: Callable[..., Any]) -> Callable[[Arguments], Arguments]:
    """Leave out cloudpickle's random id of a class."""
    place = list(inspect.signature(function).parameters).index("class_tracker_id")
    return lambda args: (*args[:place], *args[place + 1 :])


def _without(name: str) -> Callable[[Arguments], Arguments]:
    """Leave out an attribute that depends on the process or on the place of the code."""

    def simplify(args: Arguments) -> Arguments:
        changed, states = args
        return changed, [{key: value for key, value in state.items() if key != name} for state in states]

    return simplify


def _without_lines(args: Arguments) -> Arguments:
    return tuple(value for place, value in enumerate(args) if place not in _places())


@cache
def _places() -> frozenset[int]:
    """Return which arguments of CodeType are the file and its lines; versions of Python differ."""
    code = compile("1", "file", "eval")
    moved = code.replace(co_filename="", co_firstlineno=2, co_linetable=b"")
    pairs = zip(_symbols(code).made[2], _symbols(moved).made[2], strict=True)
    return frozenset(place for place, (one, other) in enumerate(pairs) if one != other)


def _without_addresses(args: Arguments) -> Arguments:
    """Read the storage of a tensor: five pickles, of which two have its address in memory, then the numbers."""
    with io.BytesIO(args[0]) as file:
        *_, storage, _ = [read(file) for _ in range(5)]
        kind, dtype, _, *more = storage.made[1]
        return kind, dtype, more, file.read()
