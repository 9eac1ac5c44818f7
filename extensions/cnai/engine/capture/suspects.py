"""Suspects: finds the variables of a target that are too big to travel or can't be pickled at all."""

from __future__ import annotations

import copyreg
import dis
import re
import sys
from collections import deque
from dataclasses import dataclass
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from cnai.engine.capture import sources
from cnai.engine.capture.claims import claimed
from cnai.engine.capture.payload import Pickler
from cnai.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

HEAVY_BYTES = 10_000_000
_DEPTH = 12

_ADVICE = {
    "TextIOWrapper": "open the file inside {owner}",
    "BufferedReader": "open the file inside {owner}",
    "BufferedWriter": "open the file inside {owner}",
    "generator": "create it inside {owner}, or pass a list",
    "lock": "create it inside {owner}",
    "RLock": "create it inside {owner}",
    "socket": "connect inside {owner}",
    "Connection": "connect inside {owner}",
    "Client": "connect inside {owner}",
    "frame": "leave it out",
    "ZMQInteractiveShell": "a rank has no notebook around it; leave it out",
    "ScriptFunction": "call torch.jit.script inside {owner}",
    "RecursiveScriptModule": "call torch.jit.script inside {owner}",
    "ReferenceType": "pass the object itself",
    "WeakValueDictionary": "use a dict, or create it inside {owner}",
    "WeakKeyDictionary": "use a dict, or create it inside {owner}",
    "WeakSet": "use a set, or create it inside {owner}",
}


@dataclass
class Variables:
    """A target's variables under the names its author knows: `named` holds a function's arguments or a cell's reads."""

    owner: str
    function: Any
    named: Mapping[str, object]


@dataclass
class _Suspect:
    owner: str
    path: str
    value: Any


class _Scale:
    """A file that counts the bytes written to it and discards them."""

    weight = 0

    def write(self, data: Any) -> int:
        """Count the bytes."""
        size = memoryview(data).nbytes
        self.weight += size
        return size


def heavy(variables: Variables, total: int) -> list[str]:
    """Return a warning for each captured variable above 10 MB."""
    if total <= HEAVY_BYTES:
        return []
    found = [
        (suspect, weight) for suspect in _all_variables(variables) if (weight := _weigh(suspect.value)) > HEAVY_BYTES
    ]
    if not found:
        return [
            f"{variables.owner} sends {total / 1e6:.0f} MB to every rank, in many variables; load the data inside it"
        ]
    return [
        f"{suspect.owner} sends {suspect.path!r} to every rank, {weight / 1e6:.0f} MB; "
        f"load it inside {suspect.owner} or pass the path of a file"
        for suspect, weight in found
    ]


def first(variables: Variables, wanted: Callable[[Any], bool]) -> str:
    """Return the name of the first variable with a wanted value, "" if there is none."""
    return next((suspect.path for suspect in _all_variables(variables) if wanted(suspect.value)), "")


def accuse(variables: Variables, error: Exception) -> CaptureError:
    """Return an error that names the variable that can't travel."""
    roots = [suspect for suspect in _all_variables(variables) if not _travels(suspect.value)]
    if not roots:
        return CaptureError(
            f"{variables.owner} can't travel to a rank: {_reason(error)}; define it in the notebook or in a module"
        )
    suspect = _deepest(roots[0])
    kind = type(suspect.value)
    shown = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    why = _reason(_problem(suspect.value) or error)
    return CaptureError(
        f"{suspect.owner} uses {suspect.path!r} ({shown}), which can't travel to a rank: {why}; {_advice(suspect)}"
    )


def _advice(suspect: _Suspect) -> str:
    if claimed(suspect.value):
        advice = "create and prepare it inside {owner}"
    elif "_torchdynamo_orig_callable" in getattr(suspect.value, "__dict__", ()):
        advice = "call torch.compile inside {owner}"
    else:
        advice = _ADVICE.get(type(suspect.value).__name__, "create it inside {owner}, or leave it out")
    return advice.format(owner=suspect.owner)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _weigh(value: Any) -> int:
    scale = _Scale()
    try:
        Pickler(scale).dump(value)
    except Exception:  # noqa: BLE001 # a user's __reduce__ may raise anything
        return 0
    return scale.weight


def _problem(value: Any) -> Exception | None:
    try:
        Pickler(_Scale()).dump(value)
    except Exception as error:  # noqa: BLE001 # a user's __reduce__ may raise anything
        return error
    return None


def _travels(value: Any) -> bool:
    return _problem(value) is None


def _all_variables(variables: Variables) -> Iterator[_Suspect]:
    """Yield the arguments first, then the variables of the function and of the functions it uses."""
    seen: set[int] = set()
    roots = [_Suspect(variables.owner, name, value) for name, value in variables.named.items()]
    if variables.function is not None:
        roots.append(_Suspect(variables.owner, variables.owner, variables.function))
    while roots:
        suspect = roots.pop(0)
        if id(suspect.value) in seen:
            continue
        seen.add(id(suspect.value))
        if isinstance(suspect.value, partial) or (
            isinstance(suspect.value, MethodType | FunctionType) and _is_authors(suspect.value)
        ):
            roots += _parts(suspect)
        elif not isinstance(suspect.value, ModuleType):
            yield suspect


def _deepest(suspect: _Suspect) -> _Suspect:
    """Return the innermost part that can't travel, but stop where only a library's author knows the names."""
    known, knows = suspect, True
    for _ in range(_DEPTH):
        bad = None if claimed(suspect.value) else next((p for p in _parts(suspect) if not _travels(p.value)), None)
        if bad is None:
            break
        if not isinstance(suspect.value, _CONTAINERS):  # the items of a container are as known as the container
            knows = _is_authors(suspect.value)
        suspect = bad
        known = bad if knows else known
    return _Suspect(known.owner, _OF_MODULES.sub(r".\1", known.path), known.value)


_CONTAINERS = (dict, list, tuple, set, frozenset, deque, partial)
_OF_MODULES = re.compile(r"\._(?:modules|parameters|buffers)\['(\w+)'\]")


def _is_authors(value: Any) -> bool:
    """Tell whether a function, class or object was written in the notebook or in a local module."""
    if isinstance(value, MethodType):
        value = value.__func__
    if isinstance(value, FunctionType):
        return sources.travels(value.__code__.co_filename)
    kind = value if isinstance(value, type) else type(value)
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return kind.__module__ == "__main__" or (file is not None and sources.travels(file))


def _parts(suspect: _Suspect) -> Iterator[_Suspect]:
    """Yield the objects that pickle visits inside a value, with names that the user recognizes."""
    value, path = suspect.value, suspect.path
    if isinstance(value, FunctionType):
        owner = value.__name__.replace("<lambda>", "lambda")
        yield from (_Suspect(owner, name, part) for name, part in used_by(value).items())
    elif isinstance(value, MethodType):
        yield from (_Suspect(suspect.owner, "self", value.__self__), _Suspect(suspect.owner, path, value.__func__))
    elif isinstance(value, partial):
        bound = {**{f"argument {number}": part for number, part in enumerate(value.args, 1)}, **value.keywords}
        yield from (_Suspect(suspect.owner, name, part) for name, part in {**bound, path: value.func}.items())
    elif isinstance(value, dict):
        yield from (_Suspect(suspect.owner, f"{path}[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from (_Suspect(suspect.owner, f"{path}[{number}]", part) for number, part in enumerate(value))
    elif isinstance(value, type):
        yield from (
            _Suspect(suspect.owner, f"{path}.{name}", part)
            for name, part in vars(value).items()
            if name[:2] != "__" or callable(part)
        )
    else:
        yield from _reduced(suspect)


def _reduced(suspect: _Suspect) -> Iterator[_Suspect]:
    """Yield the arguments and the state from an object's own reduction."""
    value, owner, path = suspect.value, suspect.owner, suspect.path
    try:
        reducer = copyreg.dispatch_table.get(type(value))
        reduction = reducer(value) if reducer else value.__reduce_ex__(4)
    except Exception:  # noqa: BLE001 # then the object itself can't travel, not one of its parts
        return
    if not isinstance(reduction, tuple):
        return
    args, state, items, pairs = ([*reduction[1:5], None, None, None])[:4]
    for attributes in state if isinstance(state, tuple) and len(state) == 2 else (state,):
        if isinstance(attributes, dict):
            yield from (_Suspect(owner, f"{path}.{name}", part) for name, part in attributes.items())
        elif attributes is not None:
            yield _Suspect(owner, path, attributes)
    yield from (_Suspect(owner, path, part) for part in args or () if part is not value and not isinstance(part, type))
    yield from (_Suspect(owner, f"{path}[{number}]", part) for number, part in enumerate(items or ()))
    yield from (_Suspect(owner, f"{path}[{key!r}]", part) for key, part in pairs or ())


def used_by(function: FunctionType) -> dict[str, object]:
    """Return the variables of a function: its closure, defaults, and the globals that it or an inner function reads."""
    used: dict[str, object] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            used[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    used.update(zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True))
    used.update(function.__kwdefaults__ or {})
    for name in sorted(globals_read(function.__code__)):
        if name in function.__globals__:
            used[name] = function.__globals__[name]
    return used


def globals_read(code: CodeType) -> set[str]:
    """Return the global names that a code object and the code objects inside it read."""
    names = {
        step.argval
        for step in dis.get_instructions(code)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
    }
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            names |= globals_read(inner)
    return names
