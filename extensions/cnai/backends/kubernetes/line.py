"""PatientLine: the line to an engine that starts eventually, may be replaced at any moment, and is removed when idle.

One thread per followed run connects to the engine, delivers requests as soon as they can be granted, reports what is
missing in the meantime, and gives up when waiting can't help.
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
    """One run's line in this process, shared by all handles of the run."""

    _all: ClassVar[WeakValueDictionary[str, PatientLine]] = WeakValueDictionary()

    @classmethod
    def to(cls, folder: RunFolder, listener: Listener | None = None) -> PatientLine:
        """Return the line of a run, and add a listener to it."""
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
        """Let an engine begin the run: create a new engine, or tell an idle one."""
        nodes = self._record.room.nodes or 1
        try:
            if not fleet.ensure(self._engine, self._record.room, nodes):
                fleet.resize(self._engine, nodes)
                self._contact.reach(fleet.standing(self._engine))
        except CnaiError:
            shutil.rmtree(self._folder.path, ignore_errors=True)  # no other process knows the run yet
            raise
        self._start()

    def open(self, *, revive: bool = True) -> None:
        """Follow the run in the background."""
        state = self._state()
        if revive and not state.final and state is not State.PAUSED:
            self._revive()
        self._start()

    def check(self) -> None:
        """Raise EngineError if the engine will not be restarted."""
        if self._lost:
            raise EngineError(self._lost)

    def wish(self, verb: Verb, value: int | None = None) -> None:
        """Send a request to the engine, or keep the request until the engine can grant it."""
        with self._lock:
            self._wishes.refusal = ""
            client = self._contact.alive() or self._contact.reach(fleet.standing(self._engine))
            if verb != "stop":
                self._wishes.take(Wish(verb, value), client)
                self._hopeless_since = None
            elif client is not None:
                client.wish(self._folder.run_id, Wish("stop"))
            else:  # immediately, because the caller's process may end a moment later
                self._end(State.CANCELLED, "stopped")
            self._contact.read()
        self._start()

    # The methods below run in the line's thread, except `_start` and `_leave`.

    def _start(self) -> None:
        with self._lock:
            self._news.set()
            if self._thread is None or not self._thread.is_alive():
                atexit.register(self._leave)
                name = f"cnai-line-{self._folder.run_id}"
                self._thread = threading.Thread(target=self._follow, name=name, daemon=True)
                self._thread.start()

    def _leave(self) -> None:
        """End the thread before the interpreter exits: stopping it in compiled code would crash the process."""
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
            except OSError as error:  # from the store; stop following a run that was removed
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
        """Do the next piece of work; tell whether to continue."""
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
        if self._state() is not state:  # the new state may be the reason why the engine is gone
            return True
        if state is State.PAUSED and waiting is None:
            self._wishes.keep_nodes()
            self._say(self._wishes.refusal)
            return standing.exists
        if not standing.exists:
            return self._recreate()
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
        """Return why waiting can't help, "" while it may help."""
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

    def _recreate(self) -> bool:
        """Recreate the engine unless a person stopped it; tell whether to continue."""
        if credentials.was_stopped(self._engine) or self._revivals >= REVIVALS:
            self._lost = (
                f"the engine was stopped; `%cnai attach {self._folder.run_id}` starts it again and resumes the run"
            )
            self._wishes.forget()
            self._say(self._lost)
            return False
        with ending.alone(self._folder, wait=False) as mine:
            # Otherwise another process has just deleted the engine to end the run.
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
