"""Scribe: writes a run's journal and state, for a driver or for a process without an engine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from cnai.engine.messages import Events, FromRank
from cnai.engine.store import Journal
from cnai.events import TRANSITIONS, Event, State, StateChange

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection

    from cnai.engine.store import RunFolder
    from cnai.events import Payload


class Sink(Protocol):
    """Receives the lines of a journal with their byte positions, after they are written."""

    def take(self, run_id: str, position: int, text: str) -> None:
        """Receive complete lines that begin at a byte position of the run's journal."""


class Scribe:
    """Writes one run; the caller must ensure that a run has only one scribe.

    `status` is the run's current status. While the disk is full, journal and status are kept in memory: methods that
    change the status then raise StoreError, but the change takes effect.
    """

    def __init__(self, folder: RunFolder, sinks: Sequence[Sink] = ()) -> None:
        self._folder, self._sinks = folder, sinks
        self._journal = Journal(folder)
        self.status = folder.status()
        self._unsaved = False

    @property
    def behind(self) -> bool:
        """Tell whether the journal or the status waits for room on the disk."""
        return self._unsaved or self._journal.behind

    def listen(self, down: Connection) -> None:
        """Write a rank's events until the rank closes the connection."""
        while True:
            try:
                message = down.recv()
            except (EOFError, OSError):
                return
            if isinstance(message, FromRank) and isinstance(message.content, Events):
                self.take(message.content.text)

    def take(self, text: str) -> None:
        """Write events that are complete lines."""
        position = self._journal.append(text)
        for sink in self._sinks:
            sink.take(self._folder.run_id, position, text)

    def note(self, fact: Payload, rank: int | None = None) -> None:
        """Write an event of the run itself."""
        event = Event.now(fact, self._folder.run_id, max(0, self.status.generation), rank)
        self.take(event.to_json() + "\n")

    def become(self, state: State, reason: str = "", **changes: Any) -> None:
        """Write a new state, or a new reason for the current state, with other changes of the status."""
        if state is not self.status.state or reason:
            self._check(state)
            self.note(StateChange(state=state, reason=reason))
            changes |= {"state": state, "reason": reason}
        if changes:
            self.keep(**changes)

    def keep(self, **changes: Any) -> None:
        """Change the status without an event."""
        self.status = replace(self.status, **changes)
        self._unsaved = True
        self._folder.write_status(self.status)
        self._unsaved = False

    def catch_up(self) -> None:
        """Write the journal and the status that waited for room."""
        self._journal.append("")
        if self._unsaved:
            self.keep()

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _check(self, state: State) -> None:
        now = self.status.state
        if state is not now and state not in TRANSITIONS[now]:
            raise AssertionError(f"{now} can't become {state}")
