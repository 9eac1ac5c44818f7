"""History: all events of a run so far, from its journal and then live, without gap or repetition."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cnai.engine.store import parse
from cnai.errors import RunFailed
from cnai.events import Event, Kind, State
from cnai.run.series import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnai.engine.store import RunFolder


class History:
    """Events of one run and the state that follows from them. Thread-safe.

    The byte position in the journal tells which events are known: live batches carry their position, so no event from
    the disk is added twice.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._position = 0
        self._lock = threading.RLock()
        self._watchers: list[Callable[[list[Event]], None]] = []
        self.changed = threading.Condition(self._lock)
        self.events: list[Event] = []
        self.metrics = Metrics()
        self.state, self.reason = State.PENDING, ""
        self.generation, self.world_size = 0, 0
        self.step: int | None = None
        self.error: RunFailed | None = None

    def read(self) -> None:
        """Read the journal's new lines."""
        with self._lock:
            self._take(self._folder.read_journal(self._position))

    def hear(self, position: int, text: str) -> None:
        """Add a live batch that begins at a byte position of the journal."""
        data = text.encode()
        with self._lock:
            if position > self._position:  # a batch was missed while the line was down
                self.read()
            known = max(0, self._position - position)
            self._take(data[known:])

    def watch(self, watcher: Callable[[list[Event]], None]) -> Callable[[], None]:
        """Call with the events so far, then new batches from a background thread; returns a function that ends it."""
        with self._lock:
            watcher(list(self.events))
            self._watchers.append(watcher)

        def forget() -> None:
            with self._lock:
                if watcher in self._watchers:
                    self._watchers.remove(watcher)

        return forget

    def _take(self, data: bytes) -> None:
        if not data:
            return
        self._position += len(data)
        batch = parse(data)
        for event in batch:
            self._fold(event)
        self.events.extend(batch)
        for watcher in list(self._watchers):
            watcher(batch)
        self.changed.notify_all()

    def _fold(self, event: Event) -> None:
        self.metrics.add(event)
        if event.kind is Kind.STATE:
            self.state, self.reason = State(event.payload["state"]), event.payload.get("reason", "")
        elif event.kind is Kind.GENERATION:
            self.generation, self.world_size = event.generation, event.payload["ranks"]
            self.step = event.payload.get("from_step") or None
        elif event.kind is Kind.DIAGNOSIS and event.payload.get("final"):
            self.error = _failure(event)
        if event.step is not None and event.kind is Kind.METRIC:
            self.step = max(self.step or 0, event.step)


def _failure(event: Event) -> RunFailed:
    payload = event.payload
    return RunFailed(
        payload["summary"],
        rank=event.rank,
        traceback=payload.get("traceback", ""),
        log_tail=payload.get("log_tail", ""),
        hint=payload.get("hint", ""),
    )
