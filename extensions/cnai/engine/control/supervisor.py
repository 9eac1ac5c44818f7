"""Supervisor: preload of the Dask scheduler. Owns every run of its engine, independent of kernels."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from distributed.diagnostics.plugin import SchedulerPlugin

from cnai import environment, paths
from cnai.engine.control.cluster import NodeLost
from cnai.engine.control.driver import Driver, Refusal
from cnai.engine.control.verdicts import STOPPED
from cnai.engine.control.workers import Topic, Workers
from cnai.engine.messages import FromNode, Leaving, message_of
from cnai.engine.node.node import UP
from cnai.engine.records import EngineStatus, NodeStatus
from cnai.engine.store import Store
from cnai.errors import CnaiError
from cnai.events import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnai.engine.control.cluster import Node, Nodes
    from cnai.engine.scribe import Sink
    from cnai.engine.store import RunFolder

REPORT_SECONDS = 2.0
"""How long the report of a rank that was killed after its grace may take."""
CANCEL_SECONDS = 1.0
RETIRED_SECONDS = 60.0
"""How long a node that was named for removal gets no ranks; then it is used again if it still exists."""

UNREADABLE = (CnaiError, OSError, ValueError, KeyError)
"""Errors of an unreadable run, which must not affect other runs."""

logger = logging.getLogger(__name__)


def dask_setup(scheduler: Any) -> None:
    """Add the supervisor and its RPCs to a Dask scheduler."""
    supervisor = Supervisor(Workers(scheduler), environment.ENGINE.get(), [Topic(scheduler)])
    scheduler.add_plugin(supervisor)
    scheduler.handlers.update(cnai_submit=supervisor.submit, cnai_wish=supervisor.wish, cnai_status=supervisor.status)
    scheduler.loop.add_callback(supervisor.recover)


async def dask_teardown(scheduler: Any) -> None:
    """Close the supervisor's own client before the scheduler closes, or the client would reconnect."""
    await scheduler.plugins[Supervisor.name].close()


class Retiring(TypedDict):
    """A node that may be removed."""

    name: str
    busy: bool


class Supervisor(SchedulerPlugin):
    """Supervises all runs of one engine. Runs on the scheduler's event loop."""

    name = "cnai-supervisor"

    def __init__(self, place: Nodes, engine: str, sinks: Sequence[Sink]) -> None:
        self.engine, self.sinks = engine, sinks
        self._place = place
        self._drivers: dict[str, Driver] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._recovered = asyncio.Event()
        self._leaving: dict[str, float] = {}
        """By node address: until when it gets no ranks, on the monotonic clock."""
        self._idle_since = 0.0
        self.resting = ""
        """Why no more generations may start, "" while they may."""

    async def before_close(self) -> None:
        """Rest before the scheduler closes for any reason."""
        await self.rest()

    async def close(self) -> None:
        """Close the client of the nodes."""
        await self._place.close()

    async def submit(self, run_id: str, root: str) -> dict[str, str]:
        """Begin a run that the caller has written into the store, or continue a run that rests there."""
        await self._recovered.wait()
        folder = Store(Path(root)).folder(run_id)
        # The run may be active or ended already: found in the store earlier, or submitted again after a lost answer.
        if run_id not in self._drivers and not folder.status().state.final:
            self._drive(Driver(self, folder, recovered=folder.begun))
        return {}

    async def wish(self, run_id: str, wish: object, only_ask: bool = False) -> dict[str, str]:
        """Take a wish as plain data, or only check it; answers `{"refused": why}` if it can't be granted."""
        await self._recovered.wait()
        self._idle_since = 0.0
        driver = self._drivers.get(run_id)
        if driver is None:
            return {"refused": f"run {run_id} isn't running on this engine; see %cnai runs"}
        try:
            driver.wish(message_of(wish), only_ask=only_ask)
        except Refusal as refusal:
            return {"refused": str(refusal)}
        return {}

    async def status(self) -> dict[str, object]:
        """Return an EngineStatus as plain data."""
        nodes: list[NodeStatus] = []
        for node in self._place.nodes():
            with contextlib.suppress(NodeLost):  # lost this moment
                nodes.append(await node.about())
        runs = {run_id: driver.state for run_id, driver in self._drivers.items()}
        return asdict(EngineStatus(address=self._place.address, pid=os.getpid(), nodes=tuple(nodes), runs=runs))

    async def recover(self) -> None:
        """Continue this engine's runs in the store: those of a lost scheduler, and those that were never begun."""
        try:
            if self.engine:
                store = Store(paths.store_root())
                for folder in reversed(store.folders()):
                    self._recover(folder)
                _remove_expired(store)
        finally:
            self._recovered.set()

    def _recover(self, folder: RunFolder) -> None:
        try:
            status = folder.status()
            mine = self.engine in {status.engine, folder.record.engine}
            if mine and not status.state.final and folder.run_id not in self._drivers:
                self._drive(Driver(self, folder, recovered=bool(status.engine)))
        except UNREADABLE:
            logger.exception("run %s", folder.run_id)

    def nodes(self, *, without_ranks: bool = False) -> list[Node]:
        """Return the nodes that may get ranks; optionally only nodes that no generation uses."""
        now, there = time.monotonic(), self._place.nodes()
        addresses = {node.address for node in there}
        self._leaving = {at: until for at, until in self._leaving.items() if until > now and at in addresses}
        return [
            node
            for node in there
            if node.open and node.address not in self._leaving and not (without_ranks and self._busy(node.address))
        ]

    def _busy(self, address: str) -> bool:
        return any(driver.on(address) for driver in self._drivers.values())

    def retire(self, number: int) -> dict[str, Retiring]:
        """Return all nodes, removable nodes first; of the first `number`, nodes without ranks get no more ranks."""
        free = {node.address for node in self.nodes()}

        def cost(node: Node) -> tuple[bool, bool, str]:
            return self._busy(node.address), node.address in free, node.address

        found = sorted(self._place.nodes(), key=cost)
        for node in found[:number]:
            if not self._busy(node.address):
                self._leaving.setdefault(node.address, time.monotonic() + RETIRED_SECONDS)
        return {node.address: {"name": node.name.partition("/")[0], "busy": self._busy(node.address)} for node in found}

    def idle_since(self) -> float:
        """Return since when no run is active here, in seconds since 1970; 0 while a run is active or may be."""
        states = {driver.state for driver in self._drivers.values()}
        if not self._recovered.is_set() or any(not state.final and state is not State.PAUSED for state in states):
            self._idle_since = 0.0
        elif not self._idle_since:
            self._idle_since = time.time()
        return self._idle_since

    def rest_seconds(self) -> float:
        """Return how long `rest` takes at most: as long as the grace of the most patient run."""
        graces = [driver.spec.grace_seconds for driver in self._drivers.values()]
        return max(graces, default=0.0) + REPORT_SECONDS

    async def rest(self, seconds: float | None = None, why: str = STOPPED) -> None:
        """End all generations at a step boundary and start no more; the next scheduler continues the runs.

        After `seconds`, by default `rest_seconds`, the remaining runs rest with their last checkpoint; the caller has
        to end their ranks.
        """
        seconds = self.rest_seconds() if seconds is None else seconds
        self.resting = self.resting or why
        for driver in self._drivers.values():
            driver.leave()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=CANCEL_SECONDS)

    def log_event(self, topic: str, msg: Any) -> None:
        """Pass messages from nodes to the drivers of their runs."""
        if topic != UP:
            return
        message = message_of(msg)
        if isinstance(message, Leaving):
            self._leaving[message.node] = float("inf")
            for each in self._drivers.values():
                if each.on(message.node):
                    each.leave()
        elif isinstance(message, FromNode) and message.run_id in self._drivers:
            self._drivers[message.run_id].hear(message)

    def _drive(self, driver: Driver) -> None:
        run_id = driver.folder.run_id
        self._idle_since = 0.0
        self._drivers[run_id] = driver
        task = asyncio.get_running_loop().create_task(driver.drive(), name=f"cnai-{run_id}")
        self._tasks.add(task)

        def forget(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            self._drivers.pop(run_id, None)
            if not done.cancelled() and (error := done.exception()) is not None:
                logger.error("run %s: %r", run_id, error, exc_info=error)

        task.add_done_callback(forget)


def _remove_expired(store: Store) -> None:
    """Remove finished runs whose time to live has passed."""
    for folder in store.folders():
        try:
            ttl, status = folder.spec.ttl_seconds, folder.status()
            ended = (folder.path / "state.json").stat().st_mtime
        except UNREADABLE:
            continue
        if ttl is not None and status.state.final and time.time() - ended > ttl:
            shutil.rmtree(folder.path, ignore_errors=True)
