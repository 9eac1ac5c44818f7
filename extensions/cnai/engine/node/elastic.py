"""Elastic: torch's agent for ranks that are programs; a rank has finished when its process has ended with code 0."""

from __future__ import annotations

import logging
import math
import multiprocessing
from typing import TYPE_CHECKING

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
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
    """Watches processes instead of return values: a program may leave with `os._exit(0)`, and returns nothing."""

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        # Asked first: a rank that fails after this question is found by torch's own look.
        ended = not multiprocessing.active_children()
        descendants.reap(spared={worker.id for worker in worker_group.workers})
        result = super()._monitor_workers(worker_group)
        if ended and result.state is WorkerState.HEALTHY:
            nothing = dict.fromkeys(worker.global_rank for worker in worker_group.workers)
            return RunResult(state=WorkerState.SUCCEEDED, return_values=nothing)
        return result


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
