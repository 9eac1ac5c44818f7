"""Payload: one line of JSON with the versions needed to read it and the sources, then the pickled target."""

from __future__ import annotations

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
from cnai.engine.capture.claims import refuse_claimed
from cnai.engine.capture.reductions import reduction

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnai.spec import Target


@dataclass(frozen=True)
class Captured:
    """A target that is ready to travel. `code_zip` holds the local modules that the target uses, b"" if none."""

    target: Target
    payload: bytes
    code_zip: bytes
    code_hash: str
    warnings: tuple[str, ...] = ()


class MainNamespace(dict[str, Any]):
    """Stands for the globals of `__main__`: unpickling it in a rank returns the globals of the rank's own `__main__`.

    Functions from several cells therefore share globals as they do in the notebook, and `pickle` finds their classes.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return frozen.main_globals, ()


class Pickler(cloudpickle.Pickler):
    """Pickles, and records the code objects that it pickles by value, by their file names."""

    def __init__(self, file: Any, namespaces: Iterable[dict[str, Any]] = ()) -> None:
        super().__init__(file)
        self.codes: dict[str, list[CodeType]] = {}
        marker = MainNamespace(__name__="__main__")
        self.globals_ref.update({id(namespace): marker for namespace in namespaces})

    def reducer_override(self, obj: Any) -> Any:
        """Replace the kernel's file name of a code object with one that its author understands (`Cell [12]`)."""
        refuse_claimed(obj)
        if type(obj) is not CodeType:
            found = reduction(obj)
            return super().reducer_override(obj) if found is NotImplemented else found
        self.codes.setdefault(obj.co_filename, []).append(obj)
        shown = sources.shown_name(obj.co_filename)
        return self.dispatch_table[CodeType](obj.replace(co_filename=shown))


@dataclass
class Pack:
    """A pickled target with the sources of its code."""

    body: bytes
    sources: dict[str, str] = field(default_factory=dict)
    codes: list[CodeType] = field(default_factory=list)

    def payload(self, local: modules.Modules) -> bytes:
        """Return the bytes that travel."""
        header = {**versions(), "sources": self.sources, "roots": local.roots, "path": local.path}
        return json.dumps(header).encode() + b"\n" + self.body


def pack(target: Any, namespaces: Iterable[dict[str, Any]] = ()) -> Pack:
    """Pickle a frozen target; pickle's errors pass through."""
    with io.BytesIO() as file:
        pickler = Pickler(file, namespaces)
        pickler.dump(target)
        body = file.getvalue()
    texts = {sources.shown_name(name): sources.text_of(name) for name in pickler.codes if sources.travels(name)}
    return Pack(body, texts, [code for codes in pickler.codes.values() for code in codes])


def captured(target: Target, packed: Pack, folders: Iterable[str], warnings: Iterable[str]) -> Captured:
    """Return the packed target together with the local modules that its code uses."""
    local = modules.freeze(packed.codes, folders)
    digest = hashlib.sha256(local.code_zip)
    for text in sorted(packed.sources.values()):  # without the names: running a cell again only changes its number
        digest.update(f"\0{text}".encode())
    return Captured(
        target, packed.payload(local), local.code_zip, digest.hexdigest()[:32], (*warnings, *local.warnings)
    )


def versions() -> dict[str, str]:
    """Return the versions that must match where a payload is read: Python's (bytecode) and cloudpickle's (format)."""
    return {"python": ".".join(platform.python_version_tuple()[:2]), "cloudpickle": cloudpickle.__version__}


def target_name(given: str) -> str:
    """Turn the name of a callable or file into a valid run name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", given).strip("_.-")[:64] or "run"
