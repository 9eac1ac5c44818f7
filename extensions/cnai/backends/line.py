"""Line: from a run here to its engine, wherever that is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol, cast

from cnai import backends
from cnai.engine.commands import Wish
from cnai.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnai.backends import Backend, Fleet
    from cnai.engine.commands import Verb
    from cnai.engine.control.client import EngineClient
    from cnai.engine.store import RunFolder
    from cnai.run.history import History

TICK_SECONDS = 1.0
ATTEMPTS = 3


class Line(Protocol):
    """Carries wishes to a run's engine, and what happens there into a history."""

    def begin(self) -> None:
        """Have the engine begin a run that was just written."""

    def open(self, *, revive: bool = True) -> None:
        """Hear of the run live; with `revive` an engine that was lost or ended is started again."""

    def wish(self, verb: Verb, value: int | None = None) -> None:
        """Ask for stop, pause, resume or scale."""

    def check(self) -> None:
        """Raise EngineError if the engine is lost and nobody brings it back."""


def of(folder: RunFolder, history: History) -> Line:
    """Return a run's line, which costs nothing until something goes over it."""
    backend = backends.get(folder.spec.backend)
    if backend.self_healing:
        from cnai.backends.kubernetes.line import PatientLine

        return PatientLine.to(folder, history, cast("Fleet", backend))
    return DirectLine(folder, history, backend)


class DirectLine:
    """To an engine that is there, or is started in a moment by whoever asks."""

    def __init__(self, folder: RunFolder, history: History, backend: Backend) -> None:
        self._folder, self._history, self._backend = folder, history, backend
        self._engine: EngineClient | None = None

    def begin(self) -> None:
        """Have the engine begin the run."""
        self._ask(lambda engine: engine.submit(self._folder.run_id, str(self._folder.path.parent)))

    def open(self, *, revive: bool = True) -> None:
        """Hear of the run live; with `revive` it goes on, if it rests, also on an engine that doesn't know it yet."""
        if revive:
            self.begin()
        else:
            self._connect()

    def wish(self, verb: Verb, value: int | None = None) -> None:
        """Ask for stop, pause, resume or scale."""
        self._ask(lambda engine: engine.wish(self._folder.run_id, Wish(verb, value)))

    def check(self) -> None:
        """Raise EngineError if the engine is lost."""
        if self._engine is not None and not self._engine.alive and not self._history.state.final:
            raise EngineError(
                f"the engine was lost; `%cnai attach {self._folder.run_id}` starts it again and the run goes on"
            )

    def _connect(self) -> EngineClient:
        engine = self._backend.connect()
        if engine is not self._engine:
            self._engine = engine
            engine.listen(self._folder.run_id, self._history.hear)
        self._history.read()
        return engine

    def _ask(self, question: Callable[[EngineClient], None]) -> None:
        """Ask the engine; one that was just lost is started again and asked again."""
        for _ in range(ATTEMPTS - 1):
            engine = self._connect()
            try:
                return question(engine)
            except EngineError:
                time.sleep(TICK_SECONDS)  # a process that was killed this moment still looks alive
        return question(self._connect())
