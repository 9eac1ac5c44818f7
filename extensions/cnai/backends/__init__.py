"""Backends: where nodes come from. They differ in nothing else; each loads when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from cnai.errors import UnknownName

if TYPE_CHECKING:
    from cnai.engine.client import EngineClient
    from cnai.spec import RunSpec

NAMES = ("debug", "local")


class Backend(Protocol):
    """Brings up a Dask scheduler and nodes with our preloads, and says what a run may ask of them."""

    def check(self, spec: RunSpec) -> dict[str, Any]:
        """Validate what a run asks for; return what nodes must know: cpu and gpus per node. Raises UsageError."""

    def connect(self) -> EngineClient:
        """Return a line to the engine, which is started if it isn't there."""

    def stop(self) -> bool:
        """End the engine with everything on it; tell whether there was one."""


def get(name: str) -> Backend:
    """Return a backend by name, or by the address of a Dask scheduler."""
    if "://" in name:
        from cnai.backends.address import AddressBackend

        return AddressBackend(name)
    if name not in NAMES:
        raise UnknownName("backend", name, [*NAMES, "tcp://host:port"])
    return cast("Backend", import_module(f"cnai.backends.{name}"))
