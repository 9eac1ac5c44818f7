"""Engines: lists the engines that exist with their runs, and finds an idle engine."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from cnai import labels
from cnai.backends import credentials
from cnai.backends.engines import PodEngine
from cnai.backends.kubernetes.standing import judge
from cnai.engine.store import Store
from cnai.paths import store_root
from cnai.reasons import seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnai.backends.kubernetes.api import Api
    from cnai.engine.records import Room
    from cnai.events import State
    from cnai.foreign import Manifest

    Runs = Mapping[str, list[tuple[str, State, float]]]


def idle(line: Api, room: Room, at_most_seconds: float) -> str | None:
    """Return an idle engine with the flavor and image of `room` that will not be removed soon."""
    fitting = [cluster["metadata"] for cluster in line.engines() if _is_of(cluster, room.flavor, room.image_reference)]
    runs = _runs() if fitting else {}
    for metadata in fitting:
        since = _idle_for(metadata, runs)
        if since is not None and since < at_most_seconds and not credentials.was_stopped(metadata["name"]):
            return str(metadata["name"])
    return None


def listing(line: Api) -> list[PodEngine]:
    """Return the facts of each engine."""
    found = [cluster for cluster in line.engines() if not cluster["metadata"].get("deletionTimestamp")]
    if not found:
        return []
    runs, pods, events = _runs(), line.pods(""), line.events()
    listed = []
    for cluster in found:
        name = cluster["metadata"]["name"]
        mine = [pod for pod in pods if pod["metadata"]["labels"][labels.DASK_CLUSTER] == name]
        listed.append(_engine(cluster, line.node_count(name), mine, events, runs))
    return listed


def _engine(
    cluster: Manifest,
    wanted: int | None,
    pods: list[Manifest],
    events: list[Manifest],
    runs: Runs,
) -> PodEngine:
    metadata, worker = cluster["metadata"], cluster["spec"]["worker"]
    now = judge(cluster, wanted, pods, events, time.time())
    since = _idle_for(metadata, runs)
    gpus = worker["spec"]["containers"][0]["resources"]["limits"].get(labels.GPU, 0)
    return PodEngine(
        engine=metadata["name"],
        flavor=metadata["labels"][labels.FLAVOR],
        nodes=now.nodes,
        wanted_nodes=worker["replicas"] if wanted is None else wanted,
        gpus=now.nodes * int(gpus),
        runs=tuple(run_id for run_id, state, _ in runs.get(metadata["name"], []) if not state.final),
        idle_seconds=None if since is None else round(since, 1),
        reason=str(now.reason),
    )


def _is_of(cluster: Mapping[str, Any], flavor: str, image: str) -> bool:
    metadata = cluster["metadata"]
    return (
        not metadata.get("deletionTimestamp")
        and metadata["labels"].get(labels.FLAVOR) == flavor
        and (metadata.get("annotations") or {}).get(labels.IMAGE) == image
    )


def _runs() -> Runs:
    """Return id, state and time of the last change of all runs in the store, by engine."""
    found = defaultdict(list)
    for folder in Store(store_root()).folders():
        if engine := folder.record.engine:
            try:
                changed = (folder.path / "state.json").stat().st_mtime
            except OSError:
                changed = folder.record.created
            found[engine].append((folder.run_id, folder.status().state, changed))
    return found


def _idle_for(metadata: Mapping[str, Any], runs: Runs) -> float | None:
    """Return for how many seconds the engine has been idle, None if one of its runs has not ended."""
    mine = runs.get(metadata["name"], [])
    if any(not state.final for _, state, _ in mine):
        return None
    return time.time() - max([seconds(metadata["creationTimestamp"]), *(changed for _, _, changed in mine)])
