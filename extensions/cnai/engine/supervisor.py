"""Supervisor: preload of the Dask scheduler. Owns every run of its cluster, whatever becomes of the kernels."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

from distributed import Client
from distributed.diagnostics.plugin import SchedulerPlugin

from cnai import paths
from cnai.engine.driver import Driver, Refusal
from cnai.engine.node import UP
from cnai.engine.store import Store
from cnai.errors import CnaiError

DOWN = "cnai"
"""Dask topic from the supervisor to everybody who watches."""

logger = logging.getLogger(__name__)


def dask_setup(scheduler: Any) -> None:
    """Make a Dask scheduler supervise runs."""
    supervisor = Supervisor(scheduler)
    scheduler.add_plugin(supervisor)
    scheduler.handlers.update(cnai_submit=supervisor.submit, cnai_wish=supervisor.wish, cnai_status=supervisor.status)
    scheduler.loop.add_callback(supervisor.recover)


async def dask_teardown(scheduler: Any) -> None:
    """Hang up before the scheduler does, or the supervisor's own client tries to connect again."""
    await scheduler.plugins[Supervisor.name].close()


class Supervisor(SchedulerPlugin):
    """All runs of one cluster. Lives on the scheduler's event loop."""

    name = "cnai-supervisor"

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.engine = os.environ.get("CNAI_ENGINE", "")
        self._drivers: dict[str, Driver] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    async def client(self) -> Client:
        """Return a Dask client of the scheduler that this process is."""
        async with self._connecting:
            if self._client is None:
                self._client = await Client(
                    self.scheduler.address,
                    security=self.scheduler.security,
                    asynchronous=True,
                    set_as_default=False,
                )
            return self._client

    async def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            await self._client.close()

    async def submit(self, run_id: str, root: str) -> dict[str, Any]:
        """Begin a run that the caller has written into the store."""
        if run_id not in self._drivers:  # asked again after a lost answer
            self._drive(Driver(self, Store(Path(root)).folder(run_id)))
        return {}

    async def wish(self, run_id: str, verb: str, value: int | None = None) -> dict[str, Any]:
        """Take a wish for a run; answers `{"refused": why}` if it can't be granted."""
        driver = self._drivers.get(run_id)
        if driver is None:
            return {"refused": f"run {run_id} isn't going on here; see %cnai runs"}
        try:
            driver.wish(verb, value)
        except Refusal as refusal:
            return {"refused": str(refusal)}
        return {}

    async def status(self) -> dict[str, Any]:
        """Return the nodes and the runs that are going on."""
        nodes = [
            {"address": address, **await self.scheduler.rpc(address).cnai_about()} for address in self.scheduler.workers
        ]
        runs = {run_id: str(driver.state) for run_id, driver in self._drivers.items()}
        return {"address": self.scheduler.address, "pid": os.getpid(), "nodes": nodes, "runs": runs}

    async def recover(self) -> None:
        """Go on with the runs that a lost scheduler of this engine left behind."""
        if not self.engine:
            return
        store = Store(paths.store_root())
        for folder in reversed(store.folders()):
            status = folder.status()
            if not status["state"].final and status["engine"] == self.engine:
                self._drive(Driver(self, folder, recovered=True))
        _remove_expired(store)

    def log_event(self, topic: str, msg: Any) -> None:
        """Hand what nodes say to their run's driver."""
        if topic == UP and (driver := self._drivers.get(msg["run"])) is not None:
            driver.hear(msg)

    def publish(self, run_id: str, position: int, text: str) -> None:
        """Tell everybody who watches."""
        self.scheduler.log_event(DOWN, {"run": run_id, "at": position, "text": text})

    def _drive(self, driver: Driver) -> None:
        run_id = driver.folder.run_id
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
    """Remove finished runs whose time to live is over."""
    for folder in store.folders():
        try:
            ttl, status = folder.spec.ttl_seconds, folder.status()
            ended = (folder.path / "state.json").stat().st_mtime
        except (CnaiError, OSError):
            continue
        if ttl is not None and status["state"].final and time.time() - ended > ttl:
            shutil.rmtree(folder.path, ignore_errors=True)
