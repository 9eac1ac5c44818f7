"""Backend: the interface of every source of nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cnai.backends.engines import Engines
    from cnai.backends.line import Line, Listener
    from cnai.engine.capture import Captured
    from cnai.engine.records import Environment, Record, Room
    from cnai.engine.store import RunFolder, Store
    from cnai.foreign import Manifest
    from cnai.spec import RunSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A run that is not in the store yet. Its record has the room that `check` returned, but no engine."""

    store: Store
    spec: RunSpec
    record: Record
    captured: Captured
    environment: Environment

    def write(self, engine: str = "") -> RunFolder:
        """Write the run with the name of its engine."""
        record = replace(self.record, engine=engine)
        return self.store.create(self.spec, record, self.captured.payload, self.captured.code_zip, self.environment)


class Backend(Protocol):
    """Starts a Dask scheduler and nodes with our preloads, and validates what a run requests of them."""

    def check(self, spec: RunSpec) -> Room:
        """Validate what a run requests; return the room that its nodes must have. Raises UsageError."""

    def preview(self, room: Room) -> Manifest | None:
        """Return the manifest that starts nodes for a run, None if the backend sends none."""

    def begin(self, draft: Draft) -> RunFolder:
        """Write a run and let an engine begin it."""

    def line(self, folder: RunFolder, listener: Listener) -> Line:
        """Return a run's line to its engine; the line connects only when it is used."""

    def prepare(self) -> None:
        """Prepare for the first run, without taking resources that other people might need."""

    def start(self, flavor: str | None = None, nodes: int | None = None) -> Engines:
        """Start an engine before a run needs it; return all engines."""

    def status(self) -> Engines:
        """Return the engines that exist; starts none."""

    def stop(self, flavor: str | None = None) -> bool:
        """Stop the engines and everything on them; tell whether there was an engine."""
