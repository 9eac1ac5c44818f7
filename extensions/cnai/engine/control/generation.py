"""Generation: one incarnation of a run's ranks, from the choice of nodes to their reports."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from cnai import environment
from cnai.engine.control.cluster import NodeLost
from cnai.engine.control.verdicts import Cause, Verdict, spread
from cnai.engine.messages import Dump, End, Order
from cnai.spec import nodes_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnai.engine.control.cluster import Agent, Cluster, Node
    from cnai.engine.control.verdicts import Fault
    from cnai.engine.messages import Abilities, Assignment, Ending, Report
    from cnai.engine.records import Record
    from cnai.events import Diagnosis
    from cnai.spec import RunSpec

TICK_SECONDS = 1.0
WAIT_SECONDS = 0.02
ENDINGS: tuple[Ending, ...] = ("graceful", "terminate", "kill")
"""From gentle to hard."""
STEP_SECONDS = 60.0
"""How long ranks may take to reach a step boundary, or their grace if that is longer."""
AGENT_SECONDS = 5.0
"""How long an agent may take beyond the grace, after which it kills its ranks."""
DUMP_SECONDS = 1.0

logger = logging.getLogger(__name__)


class NoNodes(Exception):
    """There are fewer nodes than the generation needs."""


class Interrupted(Exception):
    """A wish ends the generation while it still waits for its nodes."""


class Generation:
    """Starts an agent on each node, ends the agents on a wish, failure or limit, and gathers their reports."""

    def __init__(
        self, *, assignment: Assignment, world_size: int, spec: RunSpec, record: Record, cluster: Cluster
    ) -> None:
        self.number, self.world_size = assignment.generation, world_size
        self.diagnoses: dict[int, Diagnosis] = {}
        self.last_heard = time.monotonic()
        self.verdict: Verdict | None = None
        """Set when a limit ended the generation; otherwise the reports decide."""
        self.left = False
        """Set when its ranks have to leave a node: then their end is no failure."""
        self._assignment, self._spec, self._record, self._cluster = assignment, spec, record, cluster
        self._graceful = False
        self._failed = False
        self._cut = False
        """Set when healthy ranks were ended between two step boundaries."""
        self._nodes: list[Node] = []
        self._agents: list[Agent] = []
        self._started: set[int] = set()
        self._ending: Ending | None = None
        self._ending_since = 0.0

    @property
    def ending(self) -> bool:
        """Tell whether its ranks have been asked to end."""
        return self._ending is not None

    def started(self, node_rank: int) -> bool:
        """Note that a node starts its ranks; tell whether all nodes have."""
        self._started.add(node_rank)
        self.last_heard = time.monotonic()
        return len(self._started) == len(self._nodes)

    def announced(self, rank: int, abilities: Abilities) -> None:
        """Note what a rank's code can do."""
        if rank == 0 and abilities.graceful is not None:
            self._graceful = abilities.graceful

    def excuses(self, verdict: Verdict) -> bool:
        """Tell whether the verdict is only a consequence of a request to end.

        Code that is ended between two step boundaries may report anything, even that it has finished.
        """
        if self._cut and self.verdict is None and (self.left or verdict.ending == "finished"):
            return True
        return self.left and verdict.cause is not None and verdict.cause.fault == "infra"

    async def run(self, wished: asyncio.Event, granting: Callable[[], Ending | None]) -> list[Report]:
        """Run to the end and return the reports. `granting` returns how to end for a pending wish, None to continue."""
        self._nodes = await self._choose_nodes(wished, granting)
        self.last_heard = time.monotonic()
        try:
            orders = await self._orders()
        except NodeLost:  # lost since it was chosen
            self._give_up("node 0 was lost", "infra")
            return []
        starting = (node.start(order) for node, order in zip(self._nodes, orders, strict=True))
        try:
            self._agents = await asyncio.gather(*starting)
            return await self._watch(wished, granting)
        except Exception:
            await self._end("kill")  # no code would stop these ranks later
            raise

    async def _watch(self, wished: asyncio.Event, granting: Callable[[], Ending | None]) -> list[Report]:
        reports = [asyncio.create_task(agent.report()) for agent in self._agents]
        try:
            pending = set(reports)
            while pending:
                ended, pending = await _first(pending, wished)
                if wished.is_set():
                    wished.clear()
                    if how := granting():
                        await self._end(how)
                if pending and any(_failed(task.result()) for task in ended):
                    self._failed = True
                    await self._end("terminate")
                await self._check_limits()
                await self._cancel_lost()
            return [task.result() for task in reports]
        finally:
            for task in reports:
                task.cancel()

    async def _end(self, how: Ending) -> None:
        """Ask the nodes to end their ranks; terminate code that can't end at a step boundary."""
        if how == "graceful" and not self._graceful:
            how = "terminate"
        if self._ending is not None and ENDINGS.index(how) <= ENDINGS.index(self._ending):
            return  # a repeated request gives no extra time
        self._ending, self._ending_since = how, time.monotonic()
        self._cut |= how != "graceful" and not self._failed
        await self._tell(End(run_id=self._assignment.run_id, generation=self.number, how=how))
        for number, agent in enumerate(self._agents):
            if number not in self._started:  # waits for room on its node, behind other runs
                await agent.cancel()

    async def _tell(self, message: End | Dump) -> None:
        for node in self._nodes:
            if not node.there:
                continue
            try:
                await node.tell(message)
            except NodeLost as lost:  # the agent's report says so, too
                logger.info("%s", lost)

    async def _check_limits(self) -> None:
        now = time.monotonic()
        if self._ending is not None:
            if now - self._ending_since > self._patience_seconds(self._ending):
                await self._end(ENDINGS[ENDINGS.index(self._ending) + 1])
            return
        deadline, stall = self._spec.deadline_seconds, self._spec.stall_seconds
        if deadline is not None and time.time() - self._record.created > deadline:
            self._give_up(f"the deadline of {deadline:g} s has passed", "deadline")
            await self._end("terminate")
        elif stall is not None and self._started and now - self.last_heard > stall:
            self._give_up(
                f"no step or output for {stall:g} s; the ranks' logs have the stacks of their threads", "infra"
            )
            await self._tell(Dump(run_id=self._assignment.run_id, generation=self.number))
            await asyncio.sleep(DUMP_SECONDS)
            await self._end("terminate")

    def _patience_seconds(self, how: Ending) -> float:
        """Return how long an ending may take before the next harder ending."""
        grace = self._spec.grace_seconds
        return {"graceful": max(STEP_SECONDS, grace), "terminate": grace + AGENT_SECONDS, "kill": float("inf")}[how]

    def _give_up(self, why: str, fault: Fault) -> None:
        self.verdict = Verdict(ending="failed", cause=Cause(summary=why, fault=fault))

    def on(self, address: str) -> bool:
        """Tell whether a node holds ranks of this generation."""
        return any(node.address == address for node in self._nodes)

    async def _choose_nodes(self, wished: asyncio.Event, granting: Callable[[], Ending | None]) -> list[Node]:
        """Return the least loaded nodes, as soon as there are enough.

        Several nodes are taken only together: two runs that hold one node each would wait for each other forever.
        """
        needed = nodes_for(self.world_size, self._spec.nodes, self._record.room.ranks_per_node)
        patience_seconds = environment.NODE_SECONDS.get()
        deadline = time.monotonic() + patience_seconds
        while len(free := self._cluster.nodes(without_ranks=needed > 1)) < needed:
            if wished.is_set() and granting():
                raise Interrupted
            if len(self._cluster.nodes()) >= needed:  # another run is using them
                deadline = time.monotonic() + patience_seconds
            elif time.monotonic() > deadline:
                found = len(self._cluster.nodes())
                raise NoNodes(f"{needed} nodes needed, {found} found within {patience_seconds:.0f} s")
            await asyncio.sleep(WAIT_SECONDS)
        return sorted(free, key=lambda node: (node.load, node.address))[:needed]

    async def _cancel_lost(self) -> None:
        """Cancel agents that wait for a lost node; Dask would wait until the node returns under its old address."""
        for node, agent in zip(self._nodes, self._agents, strict=True):
            if not node.there and not agent.done:
                await agent.cancel()

    async def _orders(self) -> list[Order]:
        first, room = self._nodes[0], self._record.room
        port = await first.free_port() if len(self._nodes) > 1 else 0
        shares = spread(self.world_size, len(self._nodes))
        return [
            Order(
                assignment=self._assignment,
                node_rank=number,
                nodes=len(self._nodes),
                first_rank=sum(shares[:number]),
                ranks=share,
                endpoint=f"{first.host}:{port}",
                cwd=self._record.cwd,
                env=self._spec.env,
                cpu=room.cpu,
                gpus=room.gpus,
                grace_seconds=self._spec.grace_seconds,
                debug=self._spec.debug,
            )
            for number, share in enumerate(shares)
        ]


async def _first(
    pending: set[asyncio.Task[Report]], wished: asyncio.Event
) -> tuple[set[asyncio.Task[Report]], set[asyncio.Task[Report]]]:
    """Wait for a report, a wish or the next tick; return the ended and the pending tasks."""
    wish = asyncio.create_task(wished.wait())
    waited: list[asyncio.Task[Any]] = [*pending, wish]
    await asyncio.wait(waited, timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    wish.cancel()
    ended = {task for task in pending if task.done()}
    return ended, pending - ended


def _failed(report: Report) -> bool:
    return bool(report.failures or report.error)
