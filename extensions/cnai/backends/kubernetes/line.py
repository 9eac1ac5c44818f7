"""Patience: the line to an engine that comes by and by, may be replaced at any moment, and goes away when it is idle.

A thread per run that is followed reaches for the engine, delivers wishes as soon as they can be granted, says what is
missing meanwhile, and gives up when waiting does not help. It writes a run's end only after the engine's scheduler is
gone, so that a journal has one writer.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import shutil
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakSet, WeakValueDictionary

from cnai.backends import credentials
from cnai.engine.commands import Wish
from cnai.engine.scribe import Scribe
from cnai.errors import CnaiError, EngineError, UsageError
from cnai.events import Diagnosis, State
from cnai.spec import nodes_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnai.backends import Fleet
    from cnai.backends.kubernetes.standing import Standing
    from cnai.engine.commands import Verb
    from cnai.engine.control.client import EngineClient
    from cnai.engine.store import RunFolder
    from cnai.run.history import History

TICK_SECONDS = 1.0
CERTAIN_SECONDS = 10.0
"""What can't heal is believed after so long: pods that are just leaving still count in a quota."""
DELIVERY_SECONDS = 0.1
LEAVE_SECONDS = 10.0
REVIVALS = 3

logger = logging.getLogger(__name__)


class PatientLine:
    """One run's line in this process, however many handles there are on the run."""

    _all: ClassVar[WeakValueDictionary[str, PatientLine]] = WeakValueDictionary()

    @classmethod
    def to(cls, folder: RunFolder, history: History, fleet: Fleet) -> PatientLine:
        """Return the line of a run."""
        line = cls._all.setdefault(str(folder.path), cls(folder, fleet))
        line._histories.add(history)
        return line

    def __init__(self, folder: RunFolder, fleet: Fleet) -> None:
        self._folder, self._fleet, self._record = folder, fleet, folder.record
        self._engine: str = self._record.engine
        self._histories: WeakSet[History] = WeakSet()
        self._client: EngineClient | None = None
        self._lock, self._news = threading.RLock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._wish: tuple[Verb, int | None, int] | None = None
        """Verb, value, and the nodes that have to be there before it is delivered."""
        self._surplus_since: int | None = None
        """The generation in which fewer ranks were asked for; with the next one nodes are given back."""
        self._lost, self._refusal = "", ""
        self._hopeless_since: float | None = None
        self._waiting_since = 0.0
        """Since when a wish waits for its nodes."""
        self._revivals, self._settled = 0, -1
        self._leaving = False

    def begin(self) -> None:
        """Have an engine begin the run: it is made, or one that idles is told."""
        try:
            if not self._fleet.ensure(self._engine, self._record.room, self._record.room.nodes or 1):
                self._fleet.resize(self._engine, self._record.room.nodes or 1)
                self._reach(self._fleet.standing(self._engine))
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
            self._refusal = ""
            client = self._alive() or self._reach(self._fleet.standing(self._engine))
            if verb == "scale" and self._wish is not None and self._wish[0] == "resume":
                verb = "resume"  # with so many ranks
            if verb == "stop":
                self._stop(client)
            elif verb == "resume" or (verb == "scale" and client is not None):
                self._ask_for_nodes(verb, value, client)
            elif verb == "scale" and self._state() is State.PAUSED:
                self._note_world(value or 1)
            elif client is not None:
                client.wish(self._folder.run_id, Wish(verb, value))
            else:
                raise UsageError(
                    f"can't {verb} run {self._folder.run_id} now, its engine isn't there yet: it is {self._state()};"
                    " wait until it is RUNNING, or stop it"
                )
        self._start()

    # What follows is about one wish.

    def _stop(self, client: EngineClient | None) -> None:
        """Have the engine end the run, or end it here: whoever asked may be gone a moment later."""
        if client is not None:
            client.wish(self._folder.run_id, Wish("stop"))
        else:
            self._end(State.CANCELLED, "stopped")

    def _ask_for_nodes(self, verb: Verb, value: int | None, client: EngineClient | None) -> None:
        """Deliver a wish if its nodes are there; else see to them and deliver it when they are."""
        status = self._folder.status()
        if verb == "resume" and status.state is not State.PAUSED:
            raise UsageError(f"run {self._folder.run_id} is {status.state}, not PAUSED; there is nothing to resume")
        needed = self._nodes(value or status.world_size)
        if client is None:
            self._refuse_without_shards(value or 1)
        else:
            client.wish(self._folder.run_id, Wish(verb, value), only_ask=True)
            if len(client.status()["nodes"]) >= needed:
                client.wish(self._folder.run_id, Wish(verb, value))
                self._wish = None
                # As many ranks as before begin no new generation.
                if value is not None and value < status.world_size and self._fleet.node_count(self._engine) > needed:
                    self._surplus_since = status.generation
                    self._stay()
                return
        if not self._fleet.ensure(self._engine, self._record.room, needed):
            self._fleet.resize(self._engine, max(needed, self._fleet.node_count(self._engine)))
        self._wish, self._waiting_since = (verb, value, needed), time.time()
        self._hopeless_since = None
        self._stay()

    def _stay(self) -> None:
        """Keep a command from ending before its wish was delivered and its nodes were given back."""
        # No daemon, so the interpreter waits for it.
        threading.Thread(target=self._await_delivery, name=f"cnai-wish-{self._folder.run_id}").start()

    def _await_delivery(self) -> None:
        while self._wish is not None or self._surplus_since is not None:
            time.sleep(DELIVERY_SECONDS)

    def _note_world(self, ranks: int) -> None:
        """Note the world size of a paused run whose engine is gone; it counts when the run is resumed."""
        self._refuse_without_shards(ranks)
        with self._sole_writer() as scribe:
            scribe.become(State.PAUSED, f"{ranks} rank{'s' * (ranks > 1)} from now on", world_size=ranks)

    def _refuse_without_shards(self, ranks: int) -> None:
        """Refuse what the engine would refuse if it were there."""
        most = self._folder.status().max_ranks or ranks
        if ranks > most:
            raise UsageError(f"this run splits each step into {most} shards; ranks may be 1 to {most}")

    def _deliver(self, client: EngineClient) -> None:
        """Tell the engine what is wished when the nodes are there; asking before that keeps it from being idle."""
        assert self._wish is not None
        verb, value, needed = self._wish
        complete = len(client.status()["nodes"]) >= needed
        try:
            client.wish(self._folder.run_id, Wish(verb, value), only_ask=not complete)
        except UsageError as refused:
            self._refusal = str(refused)
            self._wish = None
        else:
            self._wish = None if complete else self._wish

    # What follows happens in the thread.

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
            self._read()
            with self._lock:
                if not going_on and not self._news.is_set():
                    self._thread = None
                    atexit.unregister(self._leave)
                    return
            self._news.wait(TICK_SECONDS)

    def _tick(self) -> bool:
        """Do what is due; tell whether there is more to come."""
        state = self._state()
        if state.final:
            self._wish = self._surplus_since = None
            self._say("")
            return False
        if state is State.RUNNING and self._wish is None and self._alive():
            self._settle()
            self._say(self._refusal)
            return True
        standing = self._fleet.standing(self._engine)
        if self._state() is not state:  # that may be why the engine is gone
            return True
        if state is State.PAUSED and self._wish is None:
            self._surplus_since = None
            self._say(self._refusal)
            return standing.exists
        if not standing.exists:
            return self._come_back()
        self._wait_for_engine(standing)
        return True

    def _wait_for_engine(self, standing: Standing) -> None:
        client = self._alive() or self._reach(standing)
        if client is not None and self._wish is not None:
            self._deliver(client)
        self._say(standing.reason)
        if why := self._hopeless(standing):
            self._give_up(why)

    def _hopeless(self, standing: Standing) -> str:
        """Return why waiting does not help, "" as long as it may."""
        now = time.time()
        if not standing.reason or standing.reason.heals:
            self._hopeless_since = None
        else:
            self._hopeless_since = self._hopeless_since or now
        if self._hopeless_since is not None and now - self._hopeless_since > CERTAIN_SECONDS:
            return standing.reason
        begun = now - standing.age_seconds
        waited = now - max(self._record.created, begun) if self._wish is None else now - self._waiting_since
        if waited > self._fleet.node_seconds():
            return f"its nodes were not there within {self._fleet.node_seconds():g} s: {standing.reason}"
        return ""

    def _give_up(self, why: str) -> None:
        if self._wish is not None:
            verb, _, _ = self._wish
            self._wish = None
            self._refusal = f"can't {verb}: {why}"
            if verb == "scale":
                self._fleet.resize(self._engine, self._nodes(self._folder.status().world_size))
            else:
                self._fleet.release(self._engine)
        elif self._state() is State.PENDING:
            self._end(State.FAILED, why)

    def _come_back(self) -> bool:
        """Make the engine again if it was not a person who ended it."""
        if credentials.was_stopped(self._engine) or self._revivals >= REVIVALS:
            self._lost = (
                f"the engine was stopped; `%cnai attach {self._folder.run_id}` starts it again and the run goes on"
            )
            self._wish = self._surplus_since = None
            self._say(self._lost)
            return False
        with self._ending(wait=False) as mine:
            if mine and not self._state().final:  # else somebody just took the engine away to end the run
                self._revivals += 1
                self._revive()
        return True

    def _revive(self) -> None:
        self._lost = ""
        if self._fleet.ensure(self._engine, self._record.room, self._nodes(self._folder.status().world_size)):
            self._hopeless_since = None

    def _alive(self) -> EngineClient | None:
        return self._client if self._client is not None and self._client.alive else None

    def _reach(self, standing: Standing) -> EngineClient | None:
        """Return the line to the scheduler if it answers; what comes over it goes into all histories.

        A name that is asked for before it exists stays unknown for seconds, so the pod has to run first.
        """
        self._client = None
        if not standing.scheduler:
            return None
        try:
            client = self._fleet.connect(self._engine)
            client.listen(self._folder.run_id, self._hear)
            if self._state() is State.PENDING:
                client.submit(self._folder.run_id, str(self._folder.path.parent))
        except EngineError as absent:
            logger.debug("%s: %s", self._engine, absent)
            return None
        self._client = client
        self._read()
        return client

    def _settle(self) -> None:
        """Give back nodes that the present generation doesn't need."""
        status = self._folder.status()
        if status.generation == self._settled:
            return
        needed = self._nodes(status.world_size)
        if self._fleet.node_count(self._engine) > needed:
            self._fleet.resize(self._engine, needed)
        self._settled = status.generation
        if self._surplus_since is not None and self._settled > self._surplus_since:
            self._surplus_since = None

    def _end(self, state: State, why: str) -> None:
        """End the run here: take its engine away, then write what became of it, unless the engine just did."""
        with self._ending():
            self._fleet.release(self._engine)
            with self._sole_writer() as scribe:
                if not self._state().final:
                    if state is State.FAILED:
                        scribe.note(Diagnosis(summary=why, final=True))
                    scribe.become(state, why)
        self._say("")

    @contextmanager
    def _ending(self, *, wait: bool = True) -> Iterator[bool]:
        """Keep followers in other processes from making the engine again that one of them takes away; tell whether."""
        with (self._folder.path / ".ending").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True

    @contextmanager
    def _sole_writer(self) -> Iterator[Scribe]:
        """Write a run whose scheduler is gone, one process at a time."""
        with (self._folder.path / ".writer").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            scribe = Scribe(self._folder)
            try:
                yield scribe
            finally:
                scribe.close()
                self._read()

    def _nodes(self, ranks: int) -> int:
        ranks = ranks or self._folder.spec.ranks.maximum
        return nodes_for(ranks, self._folder.spec.nodes, self._record.room.ranks_per_node)

    def _state(self) -> State:
        return self._folder.status().state

    def _hear(self, position: int, text: str) -> None:
        for history in list(self._histories):
            history.hear(position, text)

    def _read(self) -> None:
        for history in list(self._histories):
            history.read()

    def _say(self, text: str) -> None:
        self._folder.write_notice(text)
