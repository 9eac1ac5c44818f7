"""Backends: where nodes come from. They differ in nothing else; each loads when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from cnai import environment, programs
from cnai.errors import UnknownName

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cnai.backends.kubernetes.standing import Standing
    from cnai.engine.control.client import EngineClient
    from cnai.engine.records import Room
    from cnai.spec import RunSpec

NAMES = tuple(programs.BACKENDS)


class Backend(Protocol):
    """Brings up a Dask scheduler and nodes with our preloads, and says what a run may ask of them."""

    self_healing: bool
    """Whether a lost scheduler comes back without anybody here; then it is a `Fleet`."""

    def check(self, spec: RunSpec) -> Room:
        """Validate what a run asks for; return the room that its nodes must have. Raises UsageError."""

    def claim(self, room: Room) -> AbstractContextManager[str]:
        """Hold the name of the engine of a run that is about to be written; `room` is what `check` returned."""

    def connect(self, engine: str = "") -> EngineClient:
        """Return a line to an engine. Where there is only one, it is started if it isn't there."""

    def prepare(self) -> None:
        """Get ready for the first run as far as that costs nothing that somebody else might need."""


class Fleet(Backend, Protocol):
    """A backend with any number of engines, which come and go; making one returns before it is there."""

    def manifest(self, engine: str, room: Room) -> dict[str, Any]:
        """Return what would be sent to have an engine made."""

    def ensure(self, engine: str, room: Room, nodes: int) -> bool:
        """See to it that an engine is there or comes, made of what a run's record says; tell whether it was made."""

    def exists(self, engine: str) -> bool:
        """Tell whether an engine is there or comes."""

    def standing(self, engine: str) -> Standing:
        """Return how far an engine is and what it lacks."""

    def node_count(self, engine: str) -> int:
        """Return how many nodes an engine should have."""

    def resize(self, engine: str, nodes: int) -> None:
        """Say how many nodes an engine should have."""

    def release(self, engine: str) -> None:
        """Take an engine away; when this returns, nobody of it writes to the store any more."""

    def node_seconds(self) -> float:
        """Return how long a run waits for its nodes."""


class House(Protocol):
    """What `%cnai cluster` can ask of a backend."""

    def start(self, flavor: str | None = None, nodes: int | None = None) -> dict[str, Any]:
        """Start an engine before a run needs it; returns the status."""

    def status(self) -> dict[str, Any]:
        """Return what runs, {} if nothing does; never starts anything."""

    def stop(self, flavor: str | None = None) -> bool:
        """End the engines with everything on them; tell whether there was one."""


def default() -> str:
    """Return the backend of whoever names none."""
    return environment.BACKEND.get()


def get(name: str) -> Backend:
    """Return a backend by name, or by the address of a Dask scheduler."""
    if "://" in name:
        from cnai.backends.address import AddressBackend

        return AddressBackend(name)
    if name not in NAMES:
        raise UnknownName("backend", name, [*NAMES, "tcp://host:port"])
    return cast("Backend", import_module(programs.BACKENDS[name]))


def house(name: str) -> House:
    """Return the same backend as `%cnai cluster` sees it."""
    return cast("House", get(name))
