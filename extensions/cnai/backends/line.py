"""Line: from a run here to its engine, wherever that is."""

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
    """Takes what happens in a run; lines know no more of those who follow it."""

    @property
    def state(self) -> State:
        """Return where the run is, as far as was heard."""

    @property
    def reason(self) -> str:
        """Return why it is there."""

    def hear(self, position: int, text: str) -> None:
        """Take a live batch that begins at a byte position of the journal."""

    def read(self) -> None:
        """Take what the journal has."""


class Line(Protocol):
    """Carries wishes to a run's engine, and what happens there to a listener."""

    def open(self, *, revive: bool = True) -> None:
        """Hear of the run live; with `revive` an engine that was lost or ended is started again."""

    def wish(self, verb: Verb, value: int | None = None) -> None:
        """Ask for stop, pause, resume or scale."""

    def check(self) -> None:
        """Raise EngineError if the engine is lost and nobody brings it back."""


class DirectLine:
    """To an engine that runs, or that `connect` starts in a moment."""

    def __init__(self, folder: RunFolder, listener: Listener, connect: Callable[[], EngineClient]) -> None:
        self._folder, self._listener, self._connect = folder, listener, connect
        self._engine: EngineClient | None = None

    def open(self, *, revive: bool = True) -> None:
        """Hear of the run live; with `revive` it goes on, if it rests, also on an engine that doesn't know it yet."""
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
    """Have an engine that `connect` finds or starts begin a run that was just written; return the run."""
    ask(connect, lambda engine: engine.submit(folder.run_id, str(folder.path.parent)))
    return folder


def ask(connect: Callable[[], EngineClient], question: Callable[[EngineClient], None]) -> None:
    """Ask an engine; one that was just lost is started again and asked again."""
    for _ in range(ATTEMPTS - 1):
        engine = connect()
        try:
            return question(engine)
        except EngineError:
            time.sleep(TICK_SECONDS)  # a process that was killed this moment still looks alive
    return question(connect())
