"""The Dask operator, hardened: `python -m cnai_hub.kubernetes.operator`.

It runs the handlers of dask-kubernetes with rights in all tenants' namespaces, and asks schedulers that tenants
control. Whoever controls a scheduler must not control the operator, so three things differ from the original:
- never Dask's RPC, which unpickles whatever comes back; only the JSON API of the scheduler's dashboard port
  (`distributed.http.scheduler.api`, which our schedulers serve);
- no redirect is followed, and the address is the one that Kubernetes gave to the cluster's own Service;
- only workers that exist are deleted: a name that a scheduler answers becomes part of a path at the API server.

And two things are added: a cluster without a scheduler doesn't keep its nodes, with their GPUs, for ever; and what the
API server refused for a moment is tried again soon. All of it asks the API server as dask-kubernetes does, by kr8s:
in this process that is logged in already.
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
"""How long a cluster may be without a scheduler that is ready; longer than the slowest image takes to be pulled."""
_LOOK_SECONDS = 30.0
_AGAIN_SECONDS = 5.0
"""kopf waits for a minute, in which nobody's run begins or gives its GPUs back."""
_ENDED_SECONDS = 2.0
"""How often it looks whether the timers of a removed cluster have ended, before which its pods stay. kopf: a minute."""
_PATIENCE_SECONDS = 10
_LONGEST_ANSWER = 2**20


class SchedulerRefused(Exception):
    """The scheduler gave no usable answer; the operator goes on without."""


class NoRPC:
    """Takes the place of `distributed.core.rpc`."""

    def __init__(self, address: Any, *_args: Any, **_kwargs: Any) -> None:
        raise SchedulerRefused(f"no RPC to {address}: a scheduler could answer with code")


def harden() -> None:
    """Replace what dask-kubernetes asks schedulers with; importing it has registered its handlers with kopf."""
    from dask_kubernetes.operator import networking
    from dask_kubernetes.operator.controller import controller

    networking.rpc = controller.rpc = NoRPC
    controller.retire_workers = retire_workers
    controller.check_scheduler_idle = check_scheduler_idle
    controller.get_desired_workers = get_desired_workers


def watch_schedulers(lost_seconds: float) -> None:
    """Have the operator look after schedulers that don't come, or don't come back."""
    import kopf
    import kr8s
    from kr8s.asyncio.objects import Deployment

    @kopf.timer(f"daskcluster.{DASK_GROUP}", id="cnai-lost-schedulers", interval=min(_LOOK_SECONDS, lost_seconds))
    async def end_without_scheduler(name: str, namespace: str, meta: Any, logger: Any, **_: Any) -> None:
        from dask_kubernetes.operator._objects import DaskCluster

        try:
            found = (await Deployment.get(f"{name}-scheduler", namespace=namespace)).raw
        except kr8s.NotFoundError:  # it is being made, or removed; or it was made before, and nobody makes it again
            found = None
        if (seconds := without_scheduler(found, meta["creationTimestamp"], time.time())) <= lost_seconds:
            return
        logger.warning(f"{namespace}/{name} has had no scheduler for {seconds:.0f} s; deleting it")
        cluster = await DaskCluster.get(name, namespace=namespace)
        await cluster.delete()


def without_scheduler(deployment: Manifest | None, created: str, now: float) -> float:
    """Return for how many seconds a cluster has had no scheduler that is ready, by its deployment; 0 if it has one."""
    if deployment is None:
        return now - reasons.seconds(created)
    for condition in deployment.get("status", {}).get("conditions", []):
        if condition["type"] == "Available" and condition["status"] != "True":
            return max(0.0, now - reasons.seconds(condition["lastTransitionTime"]))
    return 0.0


async def retire_workers(
    n_workers: int, scheduler_service_name: str, worker_group_name: str, namespace: str | None, logger: Any
) -> list[str]:
    """Ask the scheduler which workers to end, and return that many of those that exist."""
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
    """Return `number` of the workers that exist: free ones, then those the scheduler doesn't know, then busy ones."""
    first = _of(exist, free)
    last = [name for name in _of(exist, busy) if name not in first]
    unknown = [name for name in reversed(exist) if name not in first and name not in last]
    return [*first, *unknown, *last][:number]


def _of(exist: list[str], named: Iterable[object]) -> list[str]:
    return [name for name in dict.fromkeys(each for each in named if isinstance(each, str)) if name in exist]


async def check_scheduler_idle(scheduler_service_name: str, namespace: str | None, logger: Any) -> float:  # noqa: ARG001
    """Return since when a scheduler has been idle, 0 when it is busy."""
    answer = await ask(scheduler_service_name, namespace, "check_idle")
    return float(_number(answer.get("idle_since") or 0))


async def get_desired_workers(scheduler_service_name: str, namespace: str | None) -> int:
    """Return how many workers a scheduler would like to have."""
    from dask_kubernetes.operator.controller.controller import SchedulerCommError

    try:
        answer = await ask(scheduler_service_name, namespace, "adaptive_target")
        return max(0, int(_number(answer.get("workers"))))
    except SchedulerRefused as refused:
        raise SchedulerCommError(str(refused)) from None


async def ask(
    service_name: str, namespace: str | None, question: str, parameters: dict[str, int] | None = None
) -> dict[str, object]:
    """Return what a scheduler's JSON API answers; every bad answer is the same error."""
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
        raise SchedulerRefused(
            f"scheduler {namespace}/{service_name} gave no answer to {question}: {error!r}"
        ) from None


def api_address(service: Manifest) -> str:
    """Return where a scheduler's API is: an address out of the cluster's own range, never a name."""
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
    """Run until ended, for all namespaces or for those given."""
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
    # Standalone: one replica, so there is nobody to agree with.
    kopf.run(
        settings=settings,
        standalone=True,
        clusterwide=not options.namespace,
        namespaces=options.namespace,
        liveness_endpoint=options.liveness or None,
    )


if __name__ == "__main__":
    main()
