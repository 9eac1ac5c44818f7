"""Agent: torch's elastic agent in the main thread of its own process, one per node and generation.

The node's warm forkserver forks it, and it forks the ranks, so neither the Dask worker nor the forkserver ever runs
user code. Rendezvous is static with `max_restarts=0`: in torch up to 2.13 an in-place restart reads its predecessor's
addresses from the store, and an elastic scale-up hangs. A new generation is a new agent with a new port instead.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cnai import environment
from cnai.engine.messages import Outcome
from cnai.engine.node import descendants, inherited
from cnai.engine.node.watchdog import end_with_parent
from cnai.engine.store import RunFolder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection

    from cnai.engine.messages import Order

LAST_SECONDS = 2.0
"""How long the children of ranks that have finished may finish, too."""


def main(order: Order, ups: list[Connection], outcome: Connection) -> None:
    """Run the agent of one node; sends an Outcome at the end.

    `ups` are the ranks' ends of their lines to the node, by local rank.
    """
    descendants.adopt()
    end_with_parent(_end_ranks)
    _environment(order)
    try:
        from cnai.engine.node import elastic

        ended = elastic.launch(order, ups, _endpoint(order.endpoint), scratch(order))
    except BaseException as error:  # noqa: BLE001  includes torch's SignalException; the node must know every failure
        ended = Outcome(error=f"{type(error).__name__}: {error}")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the ranks have ended, which is what another one would ask for
    left = descendants.end(0 if ended.failed else LAST_SECONDS)
    if left and not ended.failed:
        _note(order, left)
    outcome.send(ended)


def _end_ranks() -> None:
    """End the ranks at once, since the next generation may start elsewhere, then what they started."""
    for child in multiprocessing.active_children():
        child.kill()
    descendants.end()


def _note(order: Order, left: list[str]) -> None:
    """Tell the person, in a rank's log, what ended with the ranks."""
    log = RunFolder(order.assignment.run_dir).log_file(order.assignment.generation, order.first_rank)
    with log.open("a") as file:
        file.write(f"cnai: ended processes that outlived their rank by {LAST_SECONDS:g} s: {'; '.join(left)}\n")


def scratch(order: Order) -> Path:
    """Return the folder of torch's error files; the node removes it, even if the agent was killed."""
    return order.assignment.run_dir / f".elastic-{order.assignment.generation}-{order.node_rank}"


def _endpoint(endpoint: str) -> str:
    host, _, port = endpoint.rpartition(":")
    return f"{host}:{port if port != '0' else free_port(host)}"


def free_port(host: str) -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _environment(order: Order) -> None:
    """Give this process, and thereby its ranks, the environment of the run."""
    found = RunFolder(order.assignment.run_dir).environment
    before = _folders(os.environ, Path.cwd())
    own_threads = {**(found.variables if found else {}), **order.env}.get("OMP_NUM_THREADS")
    if found is not None:
        here = found.machine == environment.machine()
        wanted = environment.for_ranks(os.environ, found.variables, here=here)
        os.environ.clear()
        os.environ.update(wanted)
    # torch's default check would initialize CUDA in this process, and forked ranks could no longer use CUDA.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    if order.endpoint.startswith("127."):
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    if order.gpus is not None:
        visible = (
            os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if "CUDA_VISIBLE_DEVICES" in os.environ else None
        )
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join((visible or [str(i) for i in range(order.gpus)])[: order.gpus])
    os.environ["OMP_NUM_THREADS"] = own_threads or str(threads_per_rank(order))
    os.environ[environment.RUN_ID.name] = order.assignment.run_id
    os.environ[environment.GENERATION.name] = str(order.assignment.generation)
    os.environ.update(order.env)
    _change_path(before, _folders(os.environ, Path(order.cwd)))
    time.tzset()
    tempfile.tempdir = None  # found for the old environment


def _folders(variables: Mapping[str, str], cwd: Path) -> list[str]:
    return [str(cwd / folder) for folder in variables.get("PYTHONPATH", "").split(os.pathsep) if folder]


def _change_path(old: list[str], new: list[str]) -> None:
    """Replace the folders of one PYTHONPATH on `sys.path` by those of another."""
    sys.path[:] = [*new, *(folder for folder in inherited.PATH if folder not in {*old, *new})]


def threads_per_rank(order: Order) -> int:
    """Return how many CPU threads a rank may use: the node's CPUs shared among its ranks."""
    cpus = len(os.sched_getaffinity(0)) if order.cpu is None else order.cpu
    return max(1, int(cpus // order.ranks))
