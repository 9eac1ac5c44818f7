"""Generation: one incarnation of a run's ranks, from its nodes to their reports."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distributed import KilledWorker
from distributed.comm import CommClosedError

from cnai import environment
from cnai.engine.control.verdicts import Cause, Verdict, spread
from cnai.engine.messages import Order, Report
from cnai.engine.node import node
from cnai.spec import nodes_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client, Future

    from cnai.engine.control.supervisor import Supervisor
    from cnai.engine.control.verdicts import Fault
    from cnai.engine.messages import Assignment
    from cnai.engine.records import Record
    from cnai.spec import RunSpec

TICK_SECONDS = 1.0
PATIENCE_SECONDS = {"graceful": 60.0, "terminate": 10.0}
"""How long an ending may take before the next, harder one."""
HARDER = {"graceful": "terminate", "terminate": "kill"}
DUMP_SECONDS = 1.0

logger = logging.getLogger(__name__)


class NoNodes(Exception):
    """Fewer nodes than the generation needs."""


class Interrupted(Exception):
    """Something else is wanted while the generation still waits for its nodes."""


class Generation:
    """Starts an agent on each node, ends them when something says so, and gathers their reports."""

    def __init__(self, *, number: int, world_size: int, spec: RunSpec, supervisor: Supervisor) -> None:
        self.number, self.world_size = number, world_size
        self.diagnoses: dict[int, dict[str, Any]] = {}
        self.last_heard = time.monotonic()
        self.verdict: Verdict | None = None
        """Set when a limit ended the generation; otherwise the reports decide."""
        self.left = False
        """Set when its ranks have to leave a node: what they end with is no failure."""
        self._spec, self._supervisor = spec, supervisor
        self._graceful = False
        self._failed = False
        self._cut = False
        """Set when ranks that had not failed were ended between two steps."""
        self._nodes: list[str] = []
        self._futures: list[Future] = []
        self._started: set[int] = set()
        self._ending, self._ending_since = "", 0.0

    def started(self, node_rank: int) -> bool:
        """Note that a node's ranks start; tell whether all of them do."""
        self._started.add(node_rank)
        self.last_heard = time.monotonic()
        return len(self._started) == len(self._nodes)

    def announced(self, rank: int, abilities: dict[str, Any]) -> None:
        """Note what a rank's code can do."""
        if rank == 0:
            self._graceful = abilities.get("graceful", self._graceful)

    def excuses(self, verdict: Verdict) -> bool:
        """Tell whether the ranks ended as they did only because they had to leave.

        Code that was ended between two steps may say anything, also that it is finished.
        """
        lost = verdict.cause is not None and verdict.cause.fault == "infra"
        return self.left and (lost or (self._cut and self.verdict is None))

    async def run(
        self, assignment: Assignment, record: Record, wished: asyncio.Event, granting: Callable[[], str]
    ) -> list[Report]:
        """Run to the end. `granting` tells how to end for a wish, "" for not at all."""
        client = await self._supervisor.client()
        self._nodes = await self._choose_nodes(record.room.ranks_per_node, wished, granting)
        try:
            orders = await self._orders(assignment, record)
        except (OSError, CommClosedError):  # chosen a moment ago
            self._give_up("node 0 was lost", "infra")
            return []
        self._futures = [self._submit(client, order) for order in orders]
        await client.publish_dataset(self._futures, name=assignment.run_id, override=True)
        try:
            return await self._watch(wished, granting)
        finally:
            await client.unpublish_dataset(assignment.run_id)

    async def _watch(self, wished: asyncio.Event, granting: Callable[[], str]) -> list[Report]:
        reports = [asyncio.ensure_future(self._report(number)) for number in range(len(self._futures))]
        pending = set(reports)
        while pending:
            wish = asyncio.ensure_future(wished.wait())
            await asyncio.wait({*pending, wish}, timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            wish.cancel()
            ended, pending = {task for task in pending if task.done()}, {task for task in pending if not task.done()}
            if wished.is_set():
                wished.clear()
                if how := granting():
                    await self._end(how)
            if pending and any(_failed(task.result()) for task in ended):
                self._failed = True
                await self._end("terminate")
            await self._check_limits()
            await self._miss_nodes()
        return [task.result() for task in reports]

    async def _end(self, how: str) -> None:
        """Ask the nodes to end; code that can't end at a step boundary is terminated."""
        if how == "graceful" and not self._graceful:
            how = "terminate"
        if self._ending == "kill" or (self._ending == "terminate" and how == "graceful"):
            return
        self._ending, self._ending_since = how, time.monotonic()
        self._cut |= how != "graceful" and not self._failed
        await self._tell("cnai_end", how=how)
        for number, future in enumerate(self._futures):
            if number not in self._started:  # it waits for room on its node, behind other runs
                await future.cancel()

    async def _tell(self, operation: str, **arguments: Any) -> None:
        for address in self._nodes:
            if address not in self._supervisor.scheduler.workers:
                continue
            try:
                call = getattr(self._supervisor.scheduler.rpc(address), operation)
                await call(run_id=self._run_id, generation=self.number, **arguments)
            except (OSError, CommClosedError) as gone:  # the node's death is reported through its future
                logger.info("%s on %s: %s", operation, address, gone)

    async def _check_limits(self) -> None:
        now = time.monotonic()
        if self._ending in HARDER and now - self._ending_since > PATIENCE_SECONDS[self._ending]:
            await self._end(HARDER[self._ending])
        if self._ending:
            return
        deadline, stall = self._spec.deadline_seconds, self._spec.stall_seconds
        if deadline is not None and time.time() - self._created > deadline:
            self._give_up(f"the deadline of {deadline:g} s is over", "deadline")
            await self._end("terminate")
        elif stall is not None and self._started and now - self.last_heard > stall:
            self._give_up(
                f"no step or output for {stall:g} s; the ranks' logs have the stacks of their threads", "infra"
            )
            await self._tell("cnai_dump")
            await asyncio.sleep(DUMP_SECONDS)
            await self._end("terminate")

    def _give_up(self, why: str, fault: Fault) -> None:
        self.verdict = Verdict(ending="failed", cause=Cause(summary=why, fault=fault))

    def on(self, address: str) -> bool:
        """Tell whether a node holds ranks of this generation."""
        return address in self._nodes

    async def _choose_nodes(
        self, ranks_per_node: int | None, wished: asyncio.Event, granting: Callable[[], str]
    ) -> list[str]:
        """Return the least loaded nodes, as soon as there are enough of them.

        Several are taken when they are free together: two runs that hold one node each would wait for one another.
        """
        wanted = nodes_for(self.world_size, self._spec.nodes, ranks_per_node)
        patience_seconds = environment.NODE_SECONDS.get()
        deadline = time.monotonic() + patience_seconds
        while len(free := self._supervisor.nodes(without_ranks=wanted > 1)) < wanted:
            if wished.is_set() and granting():
                raise Interrupted
            if len(self._supervisor.nodes()) >= wanted:  # another run's turn
                deadline = time.monotonic() + patience_seconds
            elif time.monotonic() > deadline:
                found = len(self._supervisor.nodes())
                raise NoNodes(f"{wanted} nodes wanted, {found} found within {patience_seconds:.0f} s")
            await asyncio.sleep(0.02)
        by_load = sorted(free, key=lambda state: (len(state.processing), state.address))
        return [state.address for state in by_load[:wanted]]

    async def _miss_nodes(self) -> None:
        """Give up what waits for a node that is gone: Dask would wait until it comes back under its old address."""
        for address, future in zip(self._nodes, self._futures, strict=True):
            if address not in self._supervisor.scheduler.workers and not future.done():
                await future.cancel()

    async def _report(self, number: int) -> Report:
        future = self._futures[number]
        try:
            report: Report = await future.result()
        except KilledWorker:
            return Report(node_rank=number, error=f"node {number} was lost")
        except asyncio.CancelledError:
            there = self._nodes[number] in self._supervisor.scheduler.workers
            why = f"ended before it began on node {number}" if there else f"node {number} was lost"
            return Report(node_rank=number, error=why)
        except Exception as error:  # noqa: BLE001  a node that can't start an agent is lost too
            return Report(node_rank=number, error=f"node {number}: {type(error).__name__}: {error}")
        return report

    async def _orders(self, assignment: Assignment, record: Record) -> list[Order]:
        self._run_id, self._created = assignment.run_id, record.created
        self.last_heard = time.monotonic()
        host = self._nodes[0].partition("://")[2].rpartition(":")[0]
        port = 0
        if len(self._nodes) > 1:
            port = await self._supervisor.scheduler.rpc(self._nodes[0]).cnai_port(host=host)
        shares = spread(self.world_size, len(self._nodes))
        common = Order(
            assignment=assignment,
            node_rank=0,
            nodes=len(self._nodes),
            first_rank=0,
            ranks=0,
            endpoint=f"{host}:{port}",
            cwd=record.cwd,
            env=self._spec.env,
            cpu=record.room.cpu,
            gpus=record.room.gpus,
            debug=self._spec.debug,
        )
        return [
            replace(common, node_rank=number, first_rank=sum(shares[:number]), ranks=share)
            for number, share in enumerate(shares)
        ]

    def _submit(self, client: Client, order: Order) -> Future:
        return client.submit(
            node.run_agent,
            order,
            key=f"cnai-{self._run_id}-{self.number}-{order.node_rank}",
            workers=[self._nodes[order.node_rank]],
            allow_other_workers=False,
            resources={"node": 1},
            pure=False,
        )


def _failed(report: Report) -> bool:
    return bool(report.failures or report.error)
