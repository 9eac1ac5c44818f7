"""The local engine's two processes: a scheduler, and a node that the scheduler keeps alive.

The node starts its forkserver before it imports Dask, so that torch loads while both Dask processes start.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from typing import IO, TYPE_CHECKING, Any

from cnai import catalog, environment, programs
from cnai.backends.credentials import Certificate
from cnai.backends.local.process import LocalEngine, status_file
from cnai.paths import engine_dir, private

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from distributed import Scheduler

    from cnai.engine.control.supervisor import Supervisor

HOST = "127.0.0.1"
RUNS_AT_ONCE = 8
"""Limit on a machine without GPUs; with GPUs, runs execute one after the other."""
LEAVE_SECONDS = 5.0
WAIT_SECONDS = 60.0
"""How long a starting engine waits for an engine that is shutting down."""
RESTART_SECONDS = 2.0
"""Minimum time between two starts of the node, so that a node that can't start doesn't overload the machine."""

DASK = {
    "distributed.scheduler.allowed-failures": 0,  # the supervisor handles a lost node, immediately
    "distributed.scheduler.worker-ttl": "30s",
    "distributed.worker.daemon": False,  # agents need child processes, which daemons can't have
    "distributed.worker.profile.enabled": False,
    "distributed.admin.low-level-log-length": 16,  # the store keeps the events, so Dask needn't
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.tick.interval": "1s",
    # Dask's HTTP server requires no credentials, and its own pages import bokeh.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}
SCRATCH = "dask-scratch-space"
"""Dask's name for its folder; Dask appends it to any path that doesn't contain it."""

logger = logging.getLogger(__name__)


def main() -> None:
    """Run the scheduler process, unless an engine is already running."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    with (engine_dir() / "lock").open("w") as lock:
        if not _take(lock):
            return
        os.environ[environment.ENGINE.name] = "local"
        status_file().unlink(missing_ok=True)
        first = _start_node()
        try:
            asyncio.run(_schedule(first))
        finally:
            status_file().unlink(missing_ok=True)


def _take(lock: IO[str]) -> bool:
    """Take the engine's lock, waiting for an engine that shuts down; return False if another engine runs."""
    from cnai.backends.local import client as local

    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline and not local.running():
        deadline = max(deadline, local.leaving_until() + WAIT_SECONDS)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


def _start_node() -> subprocess.Popen[bytes]:
    # In a new session: a signal to the scheduler's process group must not end ranks that could reach a boundary.
    return subprocess.Popen(node_command(__name__), stdin=subprocess.DEVNULL, start_new_session=True)


def node_command(backend: str) -> list[str]:
    """Return the command that starts a node as a child of this process; torch starts to load before everything else."""
    program = (
        f"from {programs.NODE_WARM_UP} import warm_up; warm_up(); "
        f"from {backend} import node_main; node_main({os.getpid()})"
    )
    return [sys.executable, "-c", program]


def configure(scratch: Path, settings: Mapping[str, Any] = DASK) -> None:
    """Configure Dask in this process. `scratch` is a folder that only we can write to, with `SCRATCH` in its name.

    Dask imports modules from this folder. By default it is in the folder for temporary files, where another account may
    have created it.
    """
    import dask

    dask.config.set({**settings, "temporary-directory": str(scratch)})


class NoHTTP:
    """Mixin that keeps a Dask server from opening an HTTP port; Dask has no setting for this."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Open nothing."""


async def _schedule(first: subprocess.Popen[bytes]) -> None:
    configure(private(engine_dir() / SCRATCH))
    from distributed import Scheduler, Security

    class LocalScheduler(NoHTTP, Scheduler):
        """Talks TLS only."""

    scheduler = LocalScheduler(
        host=HOST,
        port=0,
        protocol="tls",
        security=Security.temporary(),
        dashboard=False,
        preload=[programs.SUPERVISOR_PRELOAD],
        idle_timeout=f"{environment.IDLE_SECONDS.get()}s",
    )
    async with scheduler:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        _write_status(scheduler, scheduler.address)
        keeper = asyncio.create_task(keep_node(first, _start_node, LEAVE_SECONDS))
        finished = asyncio.create_task(scheduler.finished())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({finished, stopped}, return_when=asyncio.FIRST_COMPLETED)
        supervisor = supervisor_of(scheduler)
        # From here on no process connects.
        _write_status(scheduler, "", ends_by=time.time() + supervisor.rest_seconds())
        await supervisor.rest()  # while the node still runs
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper


def supervisor_of(scheduler: Scheduler) -> Supervisor:
    """Return the supervisor that a scheduler's preload installed."""
    from cnai.engine.control.supervisor import Supervisor

    supervisor = scheduler.plugins[Supervisor.name]
    assert isinstance(supervisor, Supervisor)
    return supervisor


def _write_status(scheduler: Scheduler, address: str, *, ends_by: float = 0.0) -> None:
    """Write the engine's pid, address and certificate."""
    import psutil

    LocalEngine(
        address=address,
        pid=os.getpid(),
        started=psutil.Process().create_time(),
        ends_by=ends_by,
        tls=Certificate.of(scheduler.security),
    ).write(engine_dir())


async def keep_node(
    process: subprocess.Popen[bytes], start: Callable[[], subprocess.Popen[bytes]], leave_seconds: float
) -> None:
    """Restart the node whenever it dies; on cancellation end it, blocking for at most `leave_seconds`.

    Whatever the node, its agents and ranks leave behind ends before the next node starts, and with the last one.
    """
    from cnai.engine.node import descendants

    descendants.adopt()
    try:
        while True:
            started = time.monotonic()
            while process.poll() is None:
                await asyncio.sleep(0.05)
            logger.warning("the node ended with exit code %s; starting another one", process.returncode)
            await asyncio.to_thread(descendants.end)
            await asyncio.sleep(max(0.0, started + RESTART_SECONDS - time.monotonic()))
            process = start()
    finally:
        process.terminate()
        try:
            process.wait(timeout=leave_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        descendants.end()


def node_main(scheduler_pid: int) -> None:
    """Run the node process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(_work(_wait_for_scheduler(scheduler_pid)))


def _wait_for_scheduler(pid: int) -> LocalEngine:
    while os.getppid() == pid:
        with contextlib.suppress(OSError, ValueError):
            found = LocalEngine.from_json(status_file().read_text())
            if found.pid == pid and found.address:
                return found
        time.sleep(0.02)
    sys.exit("the scheduler is gone")


async def _work(found: LocalEngine) -> None:
    configure(private(engine_dir() / SCRATCH))
    from distributed import Worker

    from cnai.engine.node import node

    class LocalWorker(NoHTTP, Worker):
        """Talks TLS only."""

    slots = 1 if catalog.this_machine().gpus else RUNS_AT_ONCE
    worker = LocalWorker(
        found.address,
        security=found.security(),
        protocol="tls",
        host=HOST,  # the default is all interfaces
        nthreads=slots,
        resources={"node": slots},
        memory_limit=0,
        dashboard=False,
        preload=[programs.NODE_PRELOAD],
        name="this-machine",
    )
    async with worker:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, node.leave)
        await worker.finished()
    node.leave()
