"""Patience: the line to an engine that starts eventually, may be replaced at any moment, and ends when it is idle.

A thread per run that is followed reaches for the engine, has wishes delivered as soon as they can be granted, says what
is missing meanwhile, and gives up when waiting does not help.
"""

from __future__ import annotations

import atexit
import logging
import shutil
import threading
import time
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakValueDictionary

from cnai.backends import credentials
from cnai.backends.kubernetes import ending, fleet
from cnai.backends.kubernetes.contact import Contact
from cnai.backends.kubernetes.wishes import Wishes
from cnai.engine.commands import Wish
from cnai.errors import CnaiError, EngineError
from cnai.events import State

if TYPE_CHECKING:
    from cnai.backends.kubernetes.standing import Standing
    from cnai.backends.line import Listener
    from cnai.engine.commands import Verb
    from cnai.engine.store import RunFolder

TICK_SECONDS = 1.0
CERTAIN_SECONDS = 10.0
"""A fatal reason must persist this long, because terminating pods still count against the quota."""
LEAVE_SECONDS = 10.0
REVIVALS = 3

logger = logging.getLogger(__name__)


class PatientLine:
    """One run's line in this process, however many handles there are on the run."""

    _all: ClassVar[WeakValueDictionary[str, PatientLine]] = WeakValueDictionary()

    @classmethod
    def to(cls, folder: RunFolder, listener: Listener | None = None) -> PatientLine:
        """Return the line of a run, which tells one more listener what happens."""
        line = cls._all.setdefault(str(folder.path), cls(folder))
        if listener is not None:
            line._contact.add(listener)
        return line

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self._record = folder, folder.record
        self._engine: str = self._record.engine
        self._contact = Contact(folder, self._engine)
        self._wishes = Wishes(folder, self._engine)
        self._lock, self._news = threading.RLock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._lost = ""
        self._hopeless_since: float | None = None
        self._revivals = 0
        self._leaving = False

    def begin(self) -> None:
        """Have an engine begin the run: a new one is created, an idle one is told."""
        nodes = self._record.room.nodes or 1
        try:
            if not fleet.ensure(self._engine, self._record.room, nodes):
                fleet.resize(self._engine, nodes)
                self._contact.reach(fleet.standing(self._engine))
        except CnaiError:
            shutil.rmtree(self._folder.path, ignore_errors=True)  # nobody has heard of it yet
            raise
        self._start()

    def open(self, *, revive: bool = True) -> None:
        """Follow the run in the background."""
        state = self._state()
        if revive and not state.final and state is not State.PAUSED:
            self._revive()
        self._start()

    def check(self) -> None:
        """Raise EngineError if nobody brings the engine back."""
        if self._lost:
            raise EngineError(self._lost)

    def wish(self, verb: Verb, value: int | None = None) -> None:
        """Ask the engine, or note what it has to be told when it can do it."""
        with self._lock:
            self._wishes.refusal = ""
            client = self._contact.alive() or self._contact.reach(fleet.standing(self._engine))
            if verb != "stop":
                self._wishes.take(Wish(verb, value), client)
                self._hopeless_since = None
            elif client is not None:
                client.wish(self._folder.run_id, Wish("stop"))
            else:  # here, now: whoever asked may be gone a moment later
                self._end(State.CANCELLED, "stopped")
            self._contact.read()
        self._start()

    # The rest runs in the line's thread.

    def _start(self) -> None:
        with self._lock:
            self._news.set()
            if self._thread is None or not self._thread.is_alive():
                atexit.register(self._leave)
                name = f"cnai-line-{self._folder.run_id}"
                self._thread = threading.Thread(target=self._follow, name=name, daemon=True)
                self._thread.start()

    def _leave(self) -> None:
        """End the thread before the interpreter does: to be ended inside compiled code would end the process badly."""
        self._leaving = True
        self._news.set()
        if (thread := self._thread) is not None:
            thread.join(LEAVE_SECONDS)

    def _follow(self) -> None:
        while not self._leaving:
            self._news.clear()
            try:
                with self._lock:
                    going_on = self._tick()
            except CnaiError as trouble:
                self._say(str(trouble))
                going_on = True
            except OSError as error:  # the store; a run that was removed is nobody's any more
                logger.warning("run %s: %s", self._folder.run_id, error)
                going_on = self._folder.path.exists()
            self._contact.read()
            with self._lock:
                if not going_on and not self._news.is_set():
                    self._thread = None
                    atexit.unregister(self._leave)
                    return
            self._news.wait(TICK_SECONDS)

    def _tick(self) -> bool:
        """Do what is due; tell whether there is more to come."""
        state, waiting = self._state(), self._wishes.waiting
        if state.final:
            self._wishes.forget()
            self._say("")
            return False
        if state is State.RUNNING and waiting is None and self._contact.alive():
            self._wishes.settle()
            self._say(self._wishes.refusal)
            return True
        standing = fleet.standing(self._engine)
        if self._state() is not state:  # that may be why the engine is gone
            return True
        if state is State.PAUSED and waiting is None:
            self._wishes.keep_nodes()
            self._say(self._wishes.refusal)
            return standing.exists
        if not standing.exists:
            return self._come_back()
        self._wait_for_engine(standing)
        return True

    def _wait_for_engine(self, standing: Standing) -> None:
        client = self._contact.alive() or self._contact.reach(standing)
        if client is not None and self._wishes.waiting is not None:
            self._wishes.deliver(client)
        self._say(standing.reason)
        if why := self._hopeless(standing):
            self._give_up(why)

    def _hopeless(self, standing: Standing) -> str:
        """Return why waiting does not help, "" as long as it may."""
        now, wish = time.time(), self._wishes.waiting
        if not standing.reason or standing.reason.heals:
            self._hopeless_since = None
        else:
            self._hopeless_since = self._hopeless_since or now
        if self._hopeless_since is not None and now - self._hopeless_since > CERTAIN_SECONDS:
            return standing.reason
        begun = now - standing.age_seconds
        waited = now - (wish.since if wish is not None else max(self._record.created, begun))
        if waited > fleet.node_seconds():
            return f"its nodes did not start within {fleet.node_seconds():g} s: {standing.reason}"
        return ""

    def _give_up(self, why: str) -> None:
        if self._wishes.waiting is not None:
            self._wishes.give_up(why)
        elif self._state() is State.PENDING:
            self._end(State.FAILED, why)

    def _come_back(self) -> bool:
        """Create the engine again unless a person ended it; tell whether there is more to come."""
        if credentials.was_stopped(self._engine) or self._revivals >= REVIVALS:
            self._lost = (
                f"the engine was stopped; `%cnai attach {self._folder.run_id}` starts it again and resumes the run"
            )
            self._wishes.forget()
            self._say(self._lost)
            return False
        with ending.alone(self._folder, wait=False) as mine:
            # Otherwise another process just took the engine away to end the run.
            if mine and not self._state().final:
                self._revivals += 1
                self._revive()
        return True

    def _revive(self) -> None:
        self._lost = ""
        if fleet.ensure(self._engine, self._record.room, self._wishes.nodes(self._folder.status().world_size)):
            self._hopeless_since = None

    def _end(self, state: State, why: str) -> None:
        ending.end(self._folder, self._engine, state, why)
        self._say("")

    def _state(self) -> State:
        return self._folder.status().state

    def _say(self, text: str) -> None:
        self._folder.write_notice(text)
