"""Fleet: creates, inspects, resizes, connects to and deletes engines by name."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from cnai import catalog, environment, labels, podspec
from cnai.backends import credentials
from cnai.backends.kubernetes import api, manifests
from cnai.backends.kubernetes.standing import Standing, judge
from cnai.engine.control.client import EngineClient
from cnai.errors import EngineError
from cnai.paths import home, store_root

if TYPE_CHECKING:
    from cnai.engine.records import Room
    from cnai.foreign import Manifest

GOING_SECONDS = 120.0
TICK_SECONDS = 0.5

_clients: dict[str, EngineClient] = {}
_locks: dict[str, threading.Lock] = defaultdict(threading.Lock)


def node_seconds() -> float:
    """Return how long a run waits for its nodes, which may have to be added and to pull their image."""
    return environment.NODE_SECONDS.get("kubernetes")


def idle_seconds() -> int:
    """Return how long an idle engine is kept."""
    return int(environment.IDLE_SECONDS.get("kubernetes"))


def manifest(engine: str, room: Room, nodes: int) -> Manifest:
    """Return the DaskCluster of an engine."""
    place = manifests.Place(
        namespace=api.connect().namespace,
        claim=environment.HOME_CLAIM.get(),
        home=str(Path.home()),
        environment={
            environment.HOME.name: str(home()),
            environment.STORE.name: str(store_root()),
            environment.NODE_SECONDS.name: f"{node_seconds():g}",
            environment.IDLE_SECONDS.name: str(idle_seconds()),
        },
        idle_seconds=idle_seconds(),
        extras=podspec.Extras.from_json(environment.EXTRAS.get() or "{}"),
    )
    flavor = catalog.load().flavor(room.flavor)
    return manifests.engine(engine, place, flavor, room.image_reference, nodes)


def ensure(engine: str, room: Room, nodes: int) -> bool:
    """Create an engine unless it exists; tell whether it was created. Waits for the end of a deletion in progress."""
    line = api.connect()
    known = _is_known(engine)
    deadline = time.monotonic() + GOING_SECONDS
    # Children outlive the deleted cluster; wait, or we would take them for the new cluster's.
    while (found := line.engine(engine)) is not None or (known and line.is_left_of(engine)):
        if found is not None and not found["metadata"].get("deletionTimestamp"):
            return False
        if time.monotonic() > deadline:
            raise EngineError(
                f"engine {engine} is still being deleted; try again, or ask your administrator if the operator runs"
            )
        time.sleep(TICK_SECONDS)
    wanted = manifest(engine, room, nodes)
    credentials.issue(engine, manifests.address(engine, line.namespace))
    try:
        line.create(wanted)
    except EngineError:
        if not known:
            credentials.forget(engine)
        raise
    return True


def _is_known(engine: str) -> bool:
    try:
        return bool(credentials.read(engine))
    except EngineError:
        return False


def resize(engine: str, nodes: int) -> None:
    """Set how many nodes an engine should have; does nothing before the operator has created its worker group."""
    line = api.connect()
    if (now := line.node_count(engine)) is not None and now != nodes:
        line.scale(engine, nodes)


def node_count(engine: str) -> int:
    """Return how many nodes an engine should have, 0 if it doesn't exist."""
    return api.connect().node_count(engine) or 0


def standing(engine: str) -> Standing:
    """Return which parts of an engine run and what is missing."""
    line = api.connect()
    cluster = line.engine(engine)
    if cluster is None:
        return Standing(exists=False)
    return judge(cluster, line.node_count(engine), line.pods(engine), line.events(), time.time())


def delete(engine: str) -> None:
    """Delete an engine; its pods end some time later."""
    api.connect().delete(engine)
    _hang_up(engine)


def release(engine: str) -> None:
    """Delete an engine and wait until its scheduler can no longer write."""
    delete(engine)
    line = api.connect()
    deadline = time.monotonic() + GOING_SECONDS
    while any(pod["metadata"]["labels"].get(labels.DASK_COMPONENT) == labels.SCHEDULER for pod in line.pods(engine)):
        if time.monotonic() > deadline:
            raise EngineError(f"the scheduler of engine {engine} does not stop; try again in a minute")
        time.sleep(TICK_SECONDS)


def connect(engine: str) -> EngineClient:
    """Return the client of a running engine; one per process and engine."""
    with _locks[engine]:
        client = _clients.get(engine)
        if client is not None and client.alive:
            return client
        _hang_up(engine)
        found = credentials.read(engine)
        client = _clients[engine] = EngineClient(found.address, found.security())
        return client


def _hang_up(engine: str) -> None:
    if (client := _clients.pop(engine, None)) is not None:
        client.close()
