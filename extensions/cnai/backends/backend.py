"""Backend: what every place that nodes come from can be asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cnai.backends.engines import Engines
    from cnai.backends.line import Line, Listener
    from cnai.engine.capture import Captured
    from cnai.engine.records import Record, Room
    from cnai.engine.store import RunFolder, Store
    from cnai.spec import RunSpec

Manifest = dict[str, Any]
"""A Kubernetes object, as its JSON is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A run that is not in the store yet. Its record lacks the engine, and has the room that `check` returned."""

    store: Store
    spec: RunSpec
    record: Record
    captured: Captured

    def write(self, engine: str = "") -> RunFolder:
        """Write the run, with the name of the engine that is to run it."""
        record = replace(self.record, engine=engine)
        return self.store.create(self.spec, record, self.captured.payload, self.captured.code_zip)


class Backend(Protocol):
    """Starts a Dask scheduler and nodes with our preloads, and says what a run may ask of them."""

    def check(self, spec: RunSpec) -> Room:
        """Validate what a run asks for; return the room that its nodes must have. Raises UsageError."""

    def preview(self, room: Room) -> Manifest | None:
        """Return what would be sent to start nodes for a run, None if a run is all that is sent."""

    def begin(self, draft: Draft) -> RunFolder:
        """Write a run and have an engine begin it."""

    def line(self, folder: RunFolder, listener: Listener) -> Line:
        """Return a run's line to its engine, which costs nothing until something goes over it."""

    def prepare(self) -> None:
        """Get ready for the first run as far as that costs nothing that somebody else might need."""

    def start(self, flavor: str | None = None, nodes: int | None = None) -> Engines:
        """Start an engine before a run needs it; return all engines."""

    def status(self) -> Engines:
        """Return the engines that exist; never starts one."""

    def stop(self, flavor: str | None = None) -> bool:
        """End the engines with everything on them; tell whether there was one."""
