"""Scribe: the one who writes a run's journal and state, be it for a driver or where no engine is."""

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
    """Gets whatever goes into a journal, after the journal itself: its byte position belongs to the fact."""

    def take(self, run_id: str, position: int, text: str) -> None:
        """Take whole lines that begin at a byte of the run's journal."""


class Scribe:
    """Writes one run; whoever creates it has to know that nobody else does.

    `status` is where the run is. A full disk keeps journal and status in memory until there is room: methods that
    change the status raise StoreError then, but the change counts.
    """

    def __init__(self, folder: RunFolder, sinks: Sequence[Sink] = ()) -> None:
        self._folder, self._sinks = folder, sinks
        self._journal = Journal(folder)
        self.status = folder.status()
        self._unsaved = False

    @property
    def behind(self) -> bool:
        """Tell whether something waits for room on the disk."""
        return self._unsaved or self._journal.behind

    def listen(self, down: Connection) -> None:
        """Write what a rank says until it hangs up."""
        while True:
            try:
                message = down.recv()
            except (EOFError, OSError):
                return
            if isinstance(message, FromRank) and isinstance(message.content, Events):
                self.take(message.content.text)

    def take(self, text: str) -> None:
        """Write events that are whole lines already."""
        position = self._journal.append(text)
        for sink in self._sinks:
            sink.take(self._folder.run_id, position, text)

    def note(self, said: Payload, rank: int | None = None) -> None:
        """Write an event of the run itself."""
        event = Event.now(said, self._folder.run_id, max(0, self.status.generation), rank)
        self.take(event.to_json() + "\n")

    def become(self, state: State, reason: str = "", **changes: Any) -> None:
        """Write a new state, or a new reason for the present one, and what else of the status changes with it."""
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
        """Write what has waited for room."""
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
