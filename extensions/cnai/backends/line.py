"""Line: connects a run in this process to its engine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from cnai.engine.commands import Wish
from cnai.engine.control.verdicts import STOPPED
from cnai.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnai.engine.commands import Verb
    from cnai.engine.control.client import EngineClient
    from cnai.engine.store import RunFolder
    from cnai.events import State

TICK_SECONDS = 1.0
ATTEMPTS = 3


class Listener(Protocol):
    """Receives a run's journal; the only interface that lines have to a run's followers."""

    @property
    def state(self) -> State:
        """Return the last known state of the run."""

    @property
    def reason(self) -> str:
        """Return the reason for that state."""

    def hear(self, position: int, text: str) -> None:
        """Take a live batch that begins at a byte position of the journal."""

    def read(self) -> None:
        """Read the journal's new lines."""


class Line(Protocol):
    """Carries requests to a run's engine, and events from there to a listener."""

    def open(self, *, revive: bool = True) -> None:
        """Follow the run live; `revive` restarts an engine that was lost or stopped."""

    def wish(self, verb: Verb, value: int | None = None) -> None:
        """Ask for stop, pause, resume or scale."""

    def check(self) -> None:
        """Raise EngineError if the engine is lost and will not be restarted."""


class DirectLine:
    """A line to an engine that runs, or that `connect` starts within seconds."""

    def __init__(self, folder: RunFolder, listener: Listener, connect: Callable[[], EngineClient]) -> None:
        self._folder, self._listener, self._connect = folder, listener, connect
        self._engine: EngineClient | None = None

    def open(self, *, revive: bool = True) -> None:
        """Follow the run live; `revive` continues a resting run, even on an engine that doesn't know the run yet."""
        if revive:
            begin(self._folder, self._reach)
        else:
            self._reach()

    def wish(self, verb: Verb, value: int | None = None) -> None:
        """Ask for stop, pause, resume or scale."""
        ask(self._reach, lambda engine: engine.wish(self._folder.run_id, Wish(verb, value)))

    def check(self) -> None:
        """Raise EngineError if the engine is lost."""
        if self._engine is not None and not self._engine.alive and not self._listener.state.final:
            how = "stopped" if self._listener.reason == STOPPED else "lost"
            raise EngineError(
                f"the engine was {how}; `%cnai attach {self._folder.run_id}` starts it again and resumes the run"
            )

    def _reach(self) -> EngineClient:
        engine = self._connect()
        if engine is not self._engine:
            self._engine = engine
            engine.listen(self._folder.run_id, self._listener.hear)
        self._listener.read()
        return engine


def begin(folder: RunFolder, connect: Callable[[], EngineClient]) -> RunFolder:
    """Let an engine that `connect` finds or starts begin a run from the store; return the run."""
    ask(connect, lambda engine: engine.submit(folder.run_id, str(folder.path.parent)))
    return folder


def ask(connect: Callable[[], EngineClient], question: Callable[[EngineClient], None]) -> None:
    """Ask an engine; if the engine was just lost, `connect` restarts it and it is asked again."""
    for _ in range(ATTEMPTS - 1):
        engine = connect()
        try:
            return question(engine)
        except EngineError:
            time.sleep(TICK_SECONDS)  # a process that was just killed still looks alive
    return question(connect())
