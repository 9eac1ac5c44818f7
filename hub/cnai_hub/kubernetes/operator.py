"""The Dask operator, hardened: `python -m cnai_hub.kubernetes.operator`.

It runs the handlers of dask-kubernetes with rights in all tenants' namespaces, and queries schedulers that tenants
control. A tenant who controls a scheduler must not gain control of the operator, so it differs from the original:
- it never uses Dask's RPC, which unpickles responses, but only the JSON API on the scheduler's dashboard port
  (`distributed.http.scheduler.api`, which our schedulers serve);
- it follows no redirect, and connects only to the address that Kubernetes gave to the cluster's own Service;
- it deletes only workers that exist, because a name in a scheduler's response becomes part of a path at the API server.

It also adds two features: it deletes a cluster that has no scheduler, which would otherwise hold its nodes and their
GPUs forever; and it soon retries requests that the API server refused temporarily. Like dask-kubernetes, it uses kr8s
for the API server, which is already authenticated in this process.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from typing import TYPE_CHECKING, Any

from cnai import reasons
from cnai.labels import DASK_GROUP, DASK_WORKER_GROUP
from cnai.programs import OPERATOR

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnai.foreign import Manifest

API_PORT = "http-dashboard"

LOST_SECONDS = 900.0
"""How long a cluster may be without a ready scheduler; longer than it takes to pull the slowest image."""
_LOOK_SECONDS = 30.0
_AGAIN_SECONDS = 5.0
"""Delay before a failed handler is retried. kopf's default is a minute, which delays starts and the release of GPUs."""
_ENDED_SECONDS = 2.0
"""Interval of checks whether a deleted cluster's timers have ended; its pods stay until then. kopf's is a minute."""
_PATIENCE_SECONDS = 10
_LONGEST_ANSWER = 2**20


class SchedulerRefused(Exception):
    """The scheduler gave no usable answer; the operator continues without it."""


class NoRPC:
    """Replaces `distributed.core.rpc` and refuses every connection."""

    def __init__(self, address: Any, *_args: Any, **_kwargs: Any) -> None:
        raise SchedulerRefused(f"no RPC to {address}: a scheduler could answer with code")


def harden() -> None:
    """Replace dask-kubernetes' functions that query schedulers; importing it registers its handlers with kopf."""
    from dask_kubernetes.operator import networking
    from dask_kubernetes.operator.controller import controller

    networking.rpc = controller.rpc = NoRPC
    controller.retire_workers = retire_workers
    controller.check_scheduler_idle = check_scheduler_idle
    controller.get_desired_workers = get_desired_workers


def watch_schedulers(lost_seconds: float) -> None:
    """Register a timer that deletes clusters whose scheduler doesn't start, or doesn't restart, in time."""
    import kopf
    import kr8s
    from kr8s.asyncio.objects import Deployment

    @kopf.timer(f"daskcluster.{DASK_GROUP}", id="cnai-lost-schedulers", interval=min(_LOOK_SECONDS, lost_seconds))
    async def end_without_scheduler(name: str, namespace: str, meta: Any, logger: Any, **_: Any) -> None:
        from dask_kubernetes.operator._objects import DaskCluster

        try:
            found = (await Deployment.get(f"{name}-scheduler", namespace=namespace)).raw
        except kr8s.NotFoundError:  # it isn't created yet, is being deleted, or was deleted and nothing recreates it
            found = None
        if (seconds := without_scheduler(found, meta["creationTimestamp"], time.time())) <= lost_seconds:
            return
        logger.warning(f"{namespace}/{name} has had no scheduler for {seconds:.0f} s; deleting it")
        cluster = await DaskCluster.get(name, namespace=namespace)
        await cluster.delete()


def without_scheduler(deployment: Manifest | None, created: str, now: float) -> float:
    """Return for how many seconds a cluster has had no ready scheduler, by its deployment; 0 if it has one."""
    if deployment is None:
        return now - reasons.seconds(created)
    for condition in deployment.get("status", {}).get("conditions", []):
        if condition["type"] == "Available" and condition["status"] != "True":
            return max(0.0, now - reasons.seconds(condition["lastTransitionTime"]))
    return 0.0


async def retire_workers(
    n_workers: int, scheduler_service_name: str, worker_group_name: str, namespace: str | None, logger: Any
) -> list[str]:
    """Ask the scheduler which workers to stop, and return the names of `n_workers` existing ones."""
    import kr8s

    group = {DASK_WORKER_GROUP: worker_group_name}
    exist = [each.name async for each in kr8s.asyncio.get("deployments", namespace=namespace, label_selector=group)]
    try:
        answer = await ask(scheduler_service_name, namespace, "retire_workers", {"n": n_workers})
        named = [worker for worker in answer.values() if isinstance(worker, dict)]
    except SchedulerRefused as refused:
        logger.warning(f"{worker_group_name} stops its newest workers: {refused}")
        named = []
    busy = [worker.get("name") for worker in named if worker.get("busy") is True]
    free = [worker.get("name") for worker in named if worker.get("busy") is not True]
    return to_end(exist, free, busy, n_workers)


def to_end(exist: list[str], free: Iterable[object], busy: Iterable[object], number: int) -> list[str]:
    """Return `number` existing workers: first free ones, then those that the scheduler doesn't know, then busy ones."""
    first = _of(exist, free)
    last = [name for name in _of(exist, busy) if name not in first]
    unknown = [name for name in reversed(exist) if name not in first and name not in last]
    return [*first, *unknown, *last][:number]


def _of(exist: list[str], named: Iterable[object]) -> list[str]:
    return [name for name in dict.fromkeys(each for each in named if isinstance(each, str)) if name in exist]


async def check_scheduler_idle(scheduler_service_name: str, namespace: str | None, logger: Any) -> float:  # noqa: ARG001
    """Return the time since which a scheduler has been idle, 0 if it is busy."""
    answer = await ask(scheduler_service_name, namespace, "check_idle")
    return float(_number(answer.get("idle_since") or 0))


async def get_desired_workers(scheduler_service_name: str, namespace: str | None) -> int:
    """Return how many workers a scheduler requests."""
    from dask_kubernetes.operator.controller.controller import SchedulerCommError

    try:
        answer = await ask(scheduler_service_name, namespace, "adaptive_target")
        return max(0, int(_number(answer.get("workers"))))
    except SchedulerRefused as refused:
        raise SchedulerCommError(str(refused)) from None


async def ask(
    service_name: str, namespace: str | None, question: str, parameters: dict[str, int] | None = None
) -> dict[str, object]:
    """Return the answer of a scheduler's JSON API; SchedulerRefused for every failure."""
    import aiohttp
    import kr8s
    from kr8s.asyncio.objects import Service

    try:
        service = (await Service.get(service_name, namespace=namespace)).raw
        url = f"{api_address(service)}/api/v1/{question}"
        timeout = aiohttp.ClientTimeout(total=_PATIENCE_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
            session.request("POST" if parameters else "GET", url, json=parameters, allow_redirects=False) as response,
        ):
            return await _read(response)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError, kr8s.NotFoundError) as error:
        raise SchedulerRefused(f"scheduler {namespace}/{service_name} did not answer {question}: {error!r}") from None


def api_address(service: Manifest) -> str:
    """Return the address of a scheduler's API: an IP address from the cluster's Service range, never a name."""
    spec = service["spec"]
    address = spec.get("clusterIP") or "None"
    ports = [port["port"] for port in spec.get("ports", []) if port.get("name") == API_PORT]
    if spec.get("type", "ClusterIP") != "ClusterIP" or address == "None" or len(ports) != 1:
        raise SchedulerRefused(f"its service has no cluster address with one port {API_PORT!r}")
    return f"http://[{address}]:{ports[0]}" if ":" in address else f"http://{address}:{ports[0]}"


async def _read(response: Any) -> dict[str, object]:
    if response.status != 200:
        raise ValueError(f"HTTP {response.status}")
    body = bytearray()
    async for chunk in response.content.iter_chunked(2**16):
        body += chunk
        if len(body) > _LONGEST_ANSWER:
            raise ValueError(f"answer longer than {_LONGEST_ANSWER} bytes")
    answer = json.loads(body)
    if not isinstance(answer, dict):
        raise SchedulerRefused("its answer is not a JSON object")
    return answer


def _number(value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SchedulerRefused("its answer is not a number")
    return value


def main() -> None:
    """Run until stopped, for all namespaces or for the given ones."""
    parser = argparse.ArgumentParser(prog=f"python -m {OPERATOR}", description="The hardened Dask operator.")
    parser.add_argument("--namespace", action="append", default=[], help="watch only this one; may be repeated")
    parser.add_argument("--liveness", default="", help="answer probes here, such as http://0.0.0.0:8080/healthz")
    parser.add_argument(
        "--lost-seconds",
        type=float,
        default=LOST_SECONDS,
        help="delete a cluster that has had no ready scheduler for this long",
    )
    options = parser.parse_args()
    import kopf

    harden()
    watch_schedulers(options.lost_seconds)
    settings = kopf.OperatorSettings()
    settings.execution.default_backoff = _AGAIN_SECONDS
    settings.background.cancellation_polling = _ENDED_SECONDS
    kopf.configure(verbose=False)
    # Standalone: there is one replica, so there are no peers to coordinate with.
    kopf.run(
        settings=settings,
        standalone=True,
        clusterwide=not options.namespace,
        namespaces=options.namespace,
        liveness_endpoint=options.liveness or None,
    )


if __name__ == "__main__":
    main()
