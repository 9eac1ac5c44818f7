"""Payload: one line of JSON that says what is needed to read it, then the pickled target."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import platform
import re
from dataclasses import dataclass, field
from types import CodeType
from typing import TYPE_CHECKING, Any

import cloudpickle

from cnai.engine.capture import frozen, modules, sources

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnai.spec import Target


_CACHED = type(functools.cache(lambda: None))


@dataclass(frozen=True)
class Captured:
    """A target that is ready to travel. `code_zip` holds the local modules it uses, b"" if there are none."""

    target: Target
    payload: bytes
    code_zip: bytes
    code_hash: str
    warnings: tuple[str, ...] = ()


class MainNamespace(dict[str, Any]):
    """Stands for the globals of `__main__`: in the rank it becomes the rank's own `__main__`.

    So functions of several cells share globals there as they do in the notebook, and `pickle` finds their classes.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return frozen.main_globals, ()


class Pickler(cloudpickle.Pickler):
    """Pickles, and remembers all code that went by value: where it stands and what it imports."""

    def __init__(self, file: Any, namespaces: Iterable[dict[str, Any]] = ()) -> None:
        super().__init__(file)
        self.codes: dict[str, list[CodeType]] = {}
        marker = MainNamespace(__name__="__main__")
        self.globals_ref.update({id(namespace): marker for namespace in namespaces})

    def reducer_override(self, obj: Any) -> Any:
        """Give code a file name that says something to its author (`Cell [12]`) instead of the kernel's own."""
        if isinstance(obj, _CACHED) and obj.__module__ == "__main__":
            # By itself it is a reference to a name that a rank doesn't have.
            return frozen.cached, (obj.__wrapped__, obj.cache_parameters())
        if type(obj) is not CodeType:
            return super().reducer_override(obj)
        self.codes.setdefault(obj.co_filename, []).append(obj)
        shown = sources.shown_name(obj.co_filename)
        return self.dispatch_table[CodeType](obj.replace(co_filename=shown))


@dataclass
class Pack:
    """A pickled target with the sources of its code."""

    body: bytes
    sources: dict[str, str] = field(default_factory=dict)
    codes: list[CodeType] = field(default_factory=list)

    def payload(self) -> bytes:
        """Return the bytes that travel."""
        header = {**versions(), "sources": self.sources}
        return json.dumps(header).encode() + b"\n" + self.body


def pack(target: Any, namespaces: Iterable[dict[str, Any]] = ()) -> Pack:
    """Pickle a frozen target; raises what pickle raises."""
    with io.BytesIO() as file:
        pickler = Pickler(file, namespaces)
        pickler.dump(target)
        body = file.getvalue()
    texts = {sources.shown_name(name): sources.text_of(name) for name in pickler.codes if sources.travels(name)}
    return Pack(body, texts, [code for codes in pickler.codes.values() for code in codes])


def captured(target: Target, packed: Pack, folders: Iterable[str], warnings: Iterable[str]) -> Captured:
    """Add the local modules that the packed code uses."""
    code_zip, left_out = modules.freeze(packed.codes, folders)
    digest = hashlib.sha256(code_zip)
    for text in sorted(packed.sources.values()):  # a cell's number is not part of its code
        digest.update(f"\0{text}".encode())
    return Captured(target, packed.payload(), code_zip, digest.hexdigest()[:32], (*warnings, *left_out))


def versions() -> dict[str, str]:
    """Return what must be the same where a payload is read: bytecode and cloudpickle's format."""
    return {"python": ".".join(platform.python_version_tuple()[:2]), "cloudpickle": cloudpickle.__version__}


def target_name(given: str) -> str:
    """Return a name that a run may have, from the name of anything callable or of a file."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", given).strip("_.-")[:64] or "run"
