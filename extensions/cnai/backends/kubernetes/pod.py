"""The engine in pods: `python -m cnai.backends.kubernetes.pod scheduler` in one, `… node` in each of the others.

Uses the same Dask classes and preloads as the local engine. Address and credentials are in the engine's folder on the
shared volume before the first pod starts, so any pod can be replaced: the next scheduler has the same address behind
its Service, and continues the runs that name this engine in the store.

`CNAI_ENGINE` names the engine, `CNAI_NODE_SECONDS` limits how long a run waits for its nodes, `CNAI_HTTP_PORT` is the
port for `/health` and the operator's questions.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import fcntl
import ipaddress
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cnai import environment, programs
from cnai.backends.credentials import FILE, Credentials
from cnai.backends.local import engine
from cnai.errors import EngineError
from cnai.paths import engine_dir, private

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAVE_SECONDS = 50.0
"""Less than `terminationGracePeriodSeconds` (60 in our manifests), after which ranks that still run are lost."""
STATUS_SECONDS = 30.0
"""On a network volume a new file may take some seconds to appear on another machine."""
POLL_SECONDS = 0.2

DASK = {
    **engine.DASK,
    # Nodes keep trying a scheduler that is being replaced; Dask's pauses between attempts grow with this timeout.
    "distributed.comm.timeouts.connect": "5s",
    "distributed.scheduler.http.routes": [programs.QUESTIONS, "distributed.http.health"],
    "distributed.worker.http.routes": ["distributed.http.health"],
}

logger = logging.getLogger(programs.ENGINE_POD)


def main() -> None:
    """Run the pod's process until SIGTERM."""
    parser = argparse.ArgumentParser(prog=f"python -m {programs.ENGINE_POD}", description="The engine in pods.")
    parser.add_argument("part", choices=["scheduler", "node"])
    part = parser.parse_args().part
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        found = status()
    except EngineError as error:
        sys.exit(str(error))
    if part == "node":
        asyncio.run(_keep())
    else:
        with _alone(folder()):
            asyncio.run(_schedule(found))


def folder() -> Path:
    """Return the engine's folder: its address, its credentials, and the lock of its scheduler."""
    name = environment.ENGINE.get()
    if not name:
        raise EngineError(f"{environment.ENGINE} names no engine; set it to the name of the Dask cluster")
    return engine_dir() / name


def status() -> Credentials:
    """Return the engine's address and credentials, which the process that created the engine has written."""
    file = folder() / FILE
    deadline = time.monotonic() + STATUS_SECONDS
    while True:
        try:
            found = Credentials.from_json(file.read_text())
        except (OSError, ValueError) as error:
            if time.monotonic() > deadline:
                raise EngineError(f"can't read {file} ({error}); is the home volume mounted here?") from None
            time.sleep(POLL_SECONDS)
        else:
            return found


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Wait until the scheduler that this one replaces is gone; two schedulers would write to the same runs."""
    with (private(place) / "lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(POLL_SECONDS)
                continue
            except OSError as error:
                if error.errno not in {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}:
                    raise
                logger.warning("the volume of %s supports no locks: %s", place, error)
            break
        yield


async def _schedule(found: Credentials) -> None:
    engine.configure(_scratch(), DASK)
    from distributed import Scheduler

    host = own_address(found.address)
    scheduler = Scheduler(
        host=host,
        port=_port(found.address),
        protocol="tls",
        security=found.security(),
        dashboard=False,
        dashboard_address=f"{host}:{environment.HTTP_PORT.get()}",
        preload=[programs.SUPERVISOR_PRELOAD],
    )
    async with scheduler:
        logger.info("the scheduler of %s listens at %s", environment.ENGINE.get(), scheduler.address)
        stopped = asyncio.create_task(_stop().wait())
        await asyncio.wait({asyncio.create_task(scheduler.finished()), stopped}, return_when=asyncio.FIRST_COMPLETED)
        await engine.supervisor_of(scheduler).rest(LEAVE_SECONDS, "its node is shutting down")


async def _keep() -> None:
    """Keep one node alive, even after the loss of its scheduler, until this pod is stopped."""
    stop = _stop()
    keeper = asyncio.create_task(engine.keep_node(_start_node(), _start_node, LEAVE_SECONDS))
    await asyncio.wait({keeper, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    keeper.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeper


def _start_node() -> subprocess.Popen[bytes]:
    # In a new session: the container's init sends SIGTERM to its process group, which would kill the ranks.
    command = engine.node_command(programs.ENGINE_POD)
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)


def node_main(keeper: int) -> None:
    """Run the node process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(_work(status(), keeper))


async def _work(found: Credentials, keeper: int) -> None:
    """Run a node until its scheduler is lost; then end with all ranks, which the next scheduler starts again."""
    engine.configure(_scratch(), DASK)
    from distributed import Worker

    from cnai.engine.node import node

    host = own_address(found.address)
    worker = Worker(
        found.address,
        security=found.security(),
        protocol="tls",
        host=host,
        nthreads=1,
        resources={"node": 1},
        memory_limit=0,
        dashboard=False,
        dashboard_address=f"{host}:{environment.HTTP_PORT.get()}",
        preload=[programs.NODE_PRELOAD],
        name=node_name(),
    )
    orphan = asyncio.create_task(_end_without(keeper))
    async with worker:
        logger.info("node %s is connected to %s", worker.name, found.address)
        leaving: list[asyncio.Task[None]] = []

        def leave() -> None:
            leaving.append(asyncio.ensure_future(node.depart(worker, LEAVE_SECONDS - 5)))

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave)
        await worker.finished()
    orphan.cancel()
    node.leave()


def _scratch() -> Path:
    # Not on the home's volume, which may be slow; mkdtemp(3) creates a private folder.
    return Path(tempfile.mkdtemp(prefix=f"cnai-{engine.SCRATCH}-"))


async def _end_without(keeper: int) -> None:
    from cnai.engine.node import node

    while os.getppid() == keeper:
        await asyncio.sleep(1)
    node.leave()


def node_name() -> str:
    """Return the node's name: its Deployment's, by which the operator deletes it, made unique by host and pid.

    A terminating pod and its replacement share a Deployment, and Dask refuses duplicate names.
    """
    return f"{os.environ.get('DASK_WORKER_NAME') or 'node'}/{socket.gethostname()}/{os.getpid()}"


def own_address(of_engine: str) -> str:
    """Return the address at which other pods reach this pod; loopback if the engine's address is loopback."""
    from distributed.utils import get_ip

    host = of_engine.partition("://")[2].rpartition(":")[0]
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return host
    return str(get_ip())


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _stop() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


if __name__ == "__main__":
    main()
