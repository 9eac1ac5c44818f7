"""Agent: torch's elastic agent in the main thread of its own process, one per node and generation.

The node's warm forkserver forks it, and it forks the ranks, so neither the Dask worker nor the forkserver ever runs
user code. Rendezvous is static with `max_restarts=0`: in torch up to 2.13 an in-place restart reads its predecessor's
addresses from the store, and an elastic scale-up hangs. A new generation is a new agent with a new port instead.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cnai import environment
from cnai.engine.messages import Failure, Outcome
from cnai.engine.node.watchdog import end_with_parent
from cnai.engine.store import RunFolder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection

    from torch.distributed.launcher.api import LaunchConfig

    from cnai.engine.messages import Order

MONITOR_SECONDS = 0.05
RENDEZVOUS_SECONDS = 60


def main(order: Order, ups: list[Connection], outcome: Connection) -> None:
    """Run the agent of one node; sends an Outcome at the end.

    `ups` are the ranks' ends of their lines to the node, by local rank.
    """
    end_with_parent()
    _environment(order)
    try:
        outcome.send(_launch(order, ups))
    except BaseException as error:  # noqa: BLE001  includes torch's SignalException; the node must know every failure
        outcome.send(Outcome(error=f"{type(error).__name__}: {error}"))


def _launch(order: Order, ups: list[Connection]) -> Outcome:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    from cnai.engine.node import rank

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # the run's events report the same, more clearly
    config = _config_class()(
        min_nodes=order.nodes,
        max_nodes=order.nodes,
        nproc_per_node=order.ranks,
        run_id=f"{order.assignment.run_id}-{order.assignment.generation}",
        rdzv_backend="static",
        rdzv_endpoint=_endpoint(order.endpoint),
        rdzv_configs={"rank": order.node_rank, "timeout": RENDEZVOUS_SECONDS},
        max_restarts=0,
        monitor_interval=MONITOR_SECONDS,
        start_method="fork",
        local_addr=order.endpoint.rpartition(":")[0] if order.nodes == 1 else None,
        shutdown_timeout=math.ceil(order.grace_seconds),
        logs_specs=DefaultLogsSpecs(log_dir=str(scratch(order))),
    )
    try:
        elastic_launch(config, rank.main)(order, ups)
    except ChildFailedError as error:
        failures = (
            Failure(rank=global_rank, exit_code=failure.exitcode, time=float(failure.timestamp))
            for global_rank, failure in error.failures.items()
        )
        return Outcome(failures=tuple(failures))
    return Outcome()


def _config_class() -> type[LaunchConfig]:
    from torch import cuda
    from torch.distributed.launcher.api import LaunchConfig

    class ConfigWithoutGPUs(LaunchConfig):
        """Doesn't look for accelerators: without NVML this initializes CUDA, and forked ranks couldn't use CUDA."""

        def __post_init__(self) -> None:
            """Fill in no defaults: the agent gives all values."""

    return LaunchConfig if cuda._device_count_nvml() > 0 else ConfigWithoutGPUs


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
    own_threads = {**(found.variables if found else {}), **order.env}.get("OMP_NUM_THREADS")
    if found is not None:
        here = found.machine == environment.machine()
        wanted = environment.for_ranks(os.environ, found.variables, here=here)
        if here:
            _change_path(_folders(os.environ, Path.cwd()), _folders(wanted, Path(order.cwd)))
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
    time.tzset()
    tempfile.tempdir = None  # found for the old environment


def _folders(variables: Mapping[str, str], cwd: Path) -> list[str]:
    return [str(cwd / folder) for folder in variables.get("PYTHONPATH", "").split(os.pathsep) if folder]


def _change_path(old: list[str], new: list[str]) -> None:
    """Replace the folders of one PYTHONPATH on `sys.path` by those of another."""
    sys.path[:] = [*new, *(folder for folder in sys.path if folder not in {*old, *new})]


def threads_per_rank(order: Order) -> int:
    """Return how many CPU threads a rank may use: the node's CPUs shared among its ranks."""
    cpus = len(os.sched_getaffinity(0)) if order.cpu is None else order.cpu
    return max(1, int(cpus // order.ranks))
