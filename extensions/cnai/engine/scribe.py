"""Scribe: writes a run's journal and state where no supervisor does."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cnai.engine.store import Journal
from cnai.events import Event, Kind, State

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from cnai.engine.store import RunFolder


class Scribe:
    """The one who writes a run's journal; whoever makes it has to know that nobody else does."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._journal = Journal(folder)
        self._status = folder.status()

    def take(self, down: Connection) -> None:
        """Write what a rank says until it hangs up."""
        while True:
            try:
                word, _, content = down.recv()
            except (EOFError, OSError):
                return
            if word == "events":
                self._journal.append(content)

    def note(self, kind: Kind, payload: dict[str, Any], rank: int | None = None) -> None:
        """Write an event of the run itself."""
        event = Event(
            run_id=self._folder.run_id,
            generation=max(0, self._status.generation),
            kind=kind,
            time=time.time(),
            rank=rank,
            payload=payload,
        )
        self._journal.append(event.to_json() + "\n")

    def become(self, state: State, reason: str = "", **status: Any) -> None:
        """Write a new state, and what else the status should say from now on."""
        self.note(Kind.STATE, {"state": state, "reason": reason})
        self._status = replace(self._status, state=state, reason=reason, **status)
        self._folder.write_status(self._status)

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()
