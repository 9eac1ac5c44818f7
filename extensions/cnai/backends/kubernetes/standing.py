"""Standing: which parts of an engine on Kubernetes run and what is missing, read from the API server's objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cnai import reasons
from cnai.labels import DASK_COMPONENT, SCHEDULER, WORKER
from cnai.reasons import Reason, seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OPERATOR_SECONDS = 10.0
"""Within this time a running operator starts to act on a DaskCluster."""
HOPELESS_SECONDS = 60.0
_CREATORS = ("ReplicaSet", "Deployment", "DaskCluster", "DaskWorkerGroup")


@dataclass(frozen=True, slots=True)
class Standing:
    """Which parts of an engine run. `reason` says what is missing, "" if everything runs."""

    exists: bool
    age_seconds: float = 0.0
    scheduler: bool = False
    """Whether the scheduler's pod runs."""
    nodes: int = 0
    """Running pods of nodes."""
    reason: Reason = Reason()  # noqa: RUF009 - immutable


def judge(
    cluster: Mapping[str, Any] | None,
    wanted: int | None,
    pods: Iterable[Mapping[str, Any]],
    events: Iterable[Mapping[str, Any]],
    now: float,
) -> Standing:
    """Return an engine's standing; `wanted` is how many nodes it should have, None before its worker group exists."""
    if cluster is None or _deleting(cluster):
        return Standing(exists=False)
    age = now - seconds(cluster["metadata"]["creationTimestamp"])
    alive = [pod for pod in pods if not _deleting(pod) and pod["status"].get("phase") not in {"Failed", "Succeeded"}]
    running = [pod for pod in alive if _runs(pod)]
    nodes = sum(_component(pod) == WORKER for pod in running)
    goal = int(cluster["spec"]["worker"]["replicas"]) if wanted is None else wanted
    scheduled = any(_component(pod) == SCHEDULER for pod in running)
    found = list(events)
    said = _complaints(cluster, alive, found)
    reason = next((one for one in said if not one.heals), next(iter(said), Reason()))
    if not reason and not alive:
        reason = _nobody_acts(age)
    if not reason and not (scheduled and nodes >= goal):
        reason = Reason(f"{nodes} of {goal} nodes run" if scheduled else "the scheduler's pod is starting")
    return Standing(exists=True, age_seconds=age, scheduler=scheduled, nodes=nodes, reason=reason)


def _complaints(
    cluster: Mapping[str, Any], pods: list[Mapping[str, Any]], events: list[Mapping[str, Any]]
) -> list[Reason]:
    said = [reasons.of_pod(pod, events) for pod in pods if not _runs(pod)]
    content = {owner["name"] for pod in pods for owner in pod["metadata"].get("ownerReferences") or ()}
    said += [
        reasons.of_refusal(str(event.get("message") or ""))
        for event in events
        # A complaint of an object whose pod exists by now is outdated.
        if _is_about(cluster, event) and event["involvedObject"]["name"] not in content
    ]
    return [one for one in said if one]


def _is_about(cluster: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """Tell whether an event is a warning about an object that creates this engine's pods."""
    about, name = event.get("involvedObject") or {}, cluster["metadata"]["name"]
    return (
        event.get("type") != "Normal"
        and about.get("kind") in _CREATORS
        and (about.get("name") == name or str(about.get("name")).startswith(f"{name}-"))
        and reasons.last_seen(event) >= seconds(cluster["metadata"]["creationTimestamp"])
    )


def _nobody_acts(age: float) -> Reason:
    if age < OPERATOR_SECONDS:
        return Reason("the engine's pods are being created")
    return Reason(
        "no pods are created for Dask clusters here; ask your administrator whether the Dask operator runs",
        heals=age < HOPELESS_SECONDS,
    )


def _runs(pod: Mapping[str, Any]) -> bool:
    ready = {condition["type"]: condition["status"] for condition in pod["status"].get("conditions") or ()}
    return pod["status"].get("phase") == "Running" and ready.get("Ready") == "True"


def _component(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"]["labels"].get(DASK_COMPONENT))


def _deleting(thing: Mapping[str, Any]) -> bool:
    return bool(thing["metadata"].get("deletionTimestamp"))
