"""Ending: writes a run's end, or another state, from here, but only after its engine's scheduler is gone.

This way a journal has one writer. Locks in the run's folder keep the person's other processes out.
"""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cnai.backends.kubernetes import fleet
from cnai.engine.scribe import Scribe
from cnai.events import Diagnosis, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnai.engine.store import RunFolder


def end(folder: RunFolder, engine: str, state: State, why: str) -> None:
    """End a run: delete its engine, then write the final state unless the engine has just written one."""
    with alone(folder):
        fleet.release(engine)
        with sole_writer(folder) as scribe:
            if not folder.status().state.final:
                if state is State.FAILED:
                    scribe.note(Diagnosis(summary=why, final=True))
                scribe.become(state, why)


@contextmanager
def alone(folder: RunFolder, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock that keeps other processes from recreating an engine that one deletes; yield whether it is held."""
    with (folder.path / ".ending").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def sole_writer(folder: RunFolder) -> Iterator[Scribe]:
    """Yield the scribe of a run whose scheduler is gone, to one process at a time."""
    with (folder.path / ".writer").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        scribe = Scribe(folder)
        try:
            yield scribe
        finally:
            scribe.close()
