"""Elastic: torch's agent for ranks that are programs; a rank has finished when its process has ended with code 0."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousParameters, registry

from cnai.engine.messages import Failure, Outcome
from cnai.engine.node import descendants, rank
from cnai.engine.node.inherited import LOGGER

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

    from cnai.engine.messages import Order

MONITOR_SECONDS = 0.05
RENDEZVOUS_SECONDS = 60


class ProgramAgent(LocalElasticAgent):
    """Watches exit codes: a program may leave with `os._exit(0)`, and returns nothing.

    torch waits for return values, and for the end of a pipe that the rank's children may hold open.
    """

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        workers = {worker.id: worker.global_rank for worker in worker_group.workers}
        processes: list[Any] = self._pcontext._pc.processes  # type: ignore[union-attr]
        codes = {process.pid: process.exitcode for process in processes}
        descendants.reap(spared=set(workers))
        failures = {
            workers[process.pid]: ProcessFailure(index, process.pid, codes[process.pid], "")
            for index, process in enumerate(processes)
            if codes[process.pid]
        }
        if failures:
            return RunResult(state=WorkerState.FAILED, failures=failures)
        if all(code == 0 for code in codes.values()):
            return RunResult(state=WorkerState.SUCCEEDED, return_values=dict.fromkeys(workers.values()))
        return RunResult(state=WorkerState.HEALTHY)


def launch(order: Order, ups: list[Connection], endpoint: str, scratch: Path) -> Outcome:
    """Run the ranks of one node to their end. `endpoint` is host:port of the rendezvous, `scratch` a new folder."""
    logging.getLogger(LOGGER).setLevel(logging.CRITICAL)  # the run's events report the same, more clearly
    host, _, port = endpoint.rpartition(":")
    local = host if order.nodes == 1 else None
    rendezvous = RendezvousParameters(
        backend="static",
        endpoint=endpoint,
        run_id=f"{order.assignment.run_id}-{order.assignment.generation}",
        min_nodes=order.nodes,
        max_nodes=order.nodes,
        local_addr=local,
        rank=order.node_rank,
        timeout=RENDEZVOUS_SECONDS,
    )
    spec = WorkerSpec(
        role="default_role",
        local_world_size=order.ranks,
        entrypoint=rank.main,
        args=(order, ups),
        rdzv_handler=registry.get_rendezvous_handler(rendezvous),
        max_restarts=0,
        monitor_interval=MONITOR_SECONDS,
        master_addr=host,
        master_port=int(port),
        local_addr=local,
    )
    logs = DefaultLogsSpecs(log_dir=str(scratch))
    result = ProgramAgent(spec, logs, start_method="fork", shutdown_timeout=math.ceil(order.grace_seconds)).run()
    failures = (
        Failure(rank=global_rank, exit_code=failure.exitcode, time=float(failure.timestamp))
        for global_rank, failure in result.failures.items()
    )
    return Outcome(failures=tuple(failures))
