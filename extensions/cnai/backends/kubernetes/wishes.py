"""Wishes: requests about a run, delivered to its engine as soon as their nodes run."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnai.backends.kubernetes import fleet
from cnai.backends.kubernetes.ending import sole_writer
from cnai.engine.commands import Wish, refusal
from cnai.errors import UsageError
from cnai.events import State
from cnai.spec import nodes_for

if TYPE_CHECKING:
    from cnai.engine.control.client import EngineClient
    from cnai.engine.store import RunFolder

DELIVERY_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A wish that waits for its nodes."""

    wish: Wish
    nodes: int
    """The wish is delivered when the engine has this many nodes."""
    since: float
    """Seconds since 1970 (UTC)."""


class Wishes:
    """The wishes for one run. Callers must hold the lock of the run's line."""

    def __init__(self, folder: RunFolder, engine: str) -> None:
        self._folder, self._engine, self._room = folder, engine, folder.record.room
        self.waiting: Waiting | None = None
        self.refusal = ""
        """Why the last wish was refused, "" if it was granted."""
        self._surplus_since: int | None = None
        """The generation that was asked to shrink; the next one releases its surplus nodes."""
        self._settled = -1
        """The last generation that has no more nodes than it needs."""

    def take(self, wish: Wish, client: EngineClient | None) -> None:
        """Let the engine grant a wish, now or as soon as it can; raises UsageError if the wish can't be granted."""
        if wish.verb == "scale" and self.waiting is not None and self.waiting.wish.verb == "resume":
            wish = Wish("resume", wish.ranks)
        why = None if client else refusal(wish, self._folder.run_id, self._folder.status(), has_engine=False)
        if why is not None:
            raise UsageError(why)
        if wish.verb == "resume" or (wish.verb == "scale" and client is not None):
            self._ask_for_nodes(wish, client)
        elif client is not None:
            client.wish(self._folder.run_id, wish)
        else:
            self._note_world(wish.ranks or 1)

    def deliver(self, client: EngineClient) -> None:
        """Deliver the waiting wish if its nodes run; until then only ask, so that the engine doesn't count as idle."""
        assert self.waiting is not None
        waiting = self.waiting
        complete = len(client.status().nodes) >= waiting.nodes
        try:
            client.wish(self._folder.run_id, waiting.wish, only_ask=not complete)
        except UsageError as refused:
            self.refusal = str(refused)
            self.waiting = None
        else:
            self.waiting = None if complete else waiting

    def give_up(self, why: str) -> None:
        """Drop the waiting wish, and the nodes that were requested for it."""
        assert self.waiting is not None
        verb = self.waiting.wish.verb
        self.waiting = None
        self.refusal = f"can't {verb}: {why}"
        if verb == "scale":
            fleet.resize(self._engine, self.nodes(self._folder.status().world_size))
        else:
            fleet.release(self._engine)

    def forget(self) -> None:
        """Drop the waiting wish: the run or its engine has ended."""
        self.waiting = None
        self.keep_nodes()

    def keep_nodes(self) -> None:
        """Cancel the release of nodes: the engine itself is being removed."""
        self._surplus_since = None

    def settle(self) -> None:
        """Release nodes that the current generation doesn't need."""
        status = self._folder.status()
        if status.generation == self._settled:
            return
        needed = self.nodes(status.world_size)
        if fleet.node_count(self._engine) > needed:
            fleet.resize(self._engine, needed)
        self._settled = status.generation
        if self._surplus_since is not None and self._settled > self._surplus_since:
            self._surplus_since = None

    def nodes(self, ranks: int) -> int:
        """Return how many nodes a number of ranks needs; 0 stands for the run's maximum."""
        spec = self._folder.spec
        return nodes_for(ranks or spec.ranks.maximum, spec.nodes, self._room.ranks_per_node)

    def _ask_for_nodes(self, wish: Wish, client: EngineClient | None) -> None:
        """Deliver a wish if its nodes run; otherwise request the nodes and deliver the wish when they run."""
        needed = self.nodes(wish.ranks or self._folder.status().world_size)
        if client is not None:
            client.wish(self._folder.run_id, wish, only_ask=True)
            if len(client.status().nodes) >= needed:
                self._grant(wish, client, needed)
                return
        if not fleet.ensure(self._engine, self._room, needed):
            fleet.resize(self._engine, max(needed, fleet.node_count(self._engine)))
        self.waiting = Waiting(wish=wish, nodes=needed, since=time.time())
        self._stay()

    def _grant(self, wish: Wish, client: EngineClient, needed: int) -> None:
        status = self._folder.status()
        client.wish(self._folder.run_id, wish)
        self.waiting = None
        # An unchanged number of ranks starts no new generation.
        if wish.ranks is not None and wish.ranks < status.world_size and fleet.node_count(self._engine) > needed:
            self._surplus_since = status.generation
            self._stay()

    def _note_world(self, ranks: int) -> None:
        """Note the world size of a paused run whose engine is gone, for when the run is resumed."""
        with sole_writer(self._folder) as scribe:
            scribe.become(State.PAUSED, f"{ranks} rank{'s' * (ranks > 1)} from now on", world_size=ranks)

    def _stay(self) -> None:
        """Keep the command's process alive until its wish is delivered and surplus nodes are released."""
        # Not a daemon thread, so the interpreter waits for it.
        threading.Thread(target=self._await_delivery, name=f"cnai-wish-{self._folder.run_id}").start()

    def _await_delivery(self) -> None:
        while self.waiting is not None or self._surplus_since is not None:
            time.sleep(DELIVERY_SECONDS)
