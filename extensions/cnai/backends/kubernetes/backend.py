"""Kubernetes backend: one DaskCluster per engine, in the person's own namespace.

Engines come with a run, serve one run at a time, and are taken away by the operator when they have been idle, whether
a notebook lives or not. The run's record says which engine it has, so all of it can be made again.
"""

from __future__ import annotations

import fcntl
import secrets
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnai import catalog, environment, labels
from cnai.backends import credentials
from cnai.backends.kubernetes import api, engines, manifests
from cnai.backends.kubernetes.standing import Standing, judge
from cnai.engine.control.client import EngineClient
from cnai.engine.records import Room
from cnai.engine.store import writing
from cnai.errors import EngineError, UsageError
from cnai.paths import engine_dir, home, private, store_root
from cnai.spec import Ranks, RunSpec, Target, nodes_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnai.catalog import Catalog, Flavor

self_healing = True
RANKS_PER_CPU = 8
"""More ranks than this on a CPU only fight for it."""
MARGIN_SECONDS = 10.0
"""An engine that is taken away so soon takes no new run."""
GOING_SECONDS = 120.0
TICK_SECONDS = 0.5

_clients: dict[str, EngineClient] = {}
_locks: dict[str, threading.Lock] = defaultdict(threading.Lock)


def node_seconds() -> float:
    """Return how long a run waits for its nodes: they may have to be started and their image pulled."""
    return environment.NODE_SECONDS.get("kubernetes")


def idle_seconds() -> int:
    """Return how long an engine stays when nothing goes on."""
    return int(environment.IDLE_SECONDS.get("kubernetes"))


def check(spec: RunSpec) -> Room:
    """Validate flavor, image and ranks against the catalog; return what the engine is made of."""
    shelf = catalog.load()
    flavor = _flavor(spec.flavor, shelf)
    most = flavor.gpus or RANKS_PER_CPU * max(1, int(flavor.cpu))
    nodes = nodes_for(spec.ranks.maximum, spec.nodes, most)
    if spec.nodes is not None and nodes > spec.nodes:
        what = f"{flavor.gpus} GPU{'s' * (flavor.gpus > 1)}" if flavor.gpus else f"{flavor.cpu:g} CPU"
        raise UsageError(
            f"{spec.ranks.maximum} ranks need {nodes} nodes of flavor {flavor.name} ({what}: {most} ranks each);"
            f" given: --nodes {spec.nodes}"
        )
    return Room(
        cpu=flavor.cpu,
        gpus=flavor.gpus,
        nodes=nodes,
        ranks_per_node=most,
        flavor=flavor.name,
        image_reference=_image(spec.image, shelf),
    )


def _flavor(name: str | None, shelf: Catalog) -> Flavor:
    if wanted := name or environment.FLAVOR.get():
        return shelf.flavor(wanted)
    return shelf.default_flavor()


def _image(name: str | None, shelf: Catalog) -> str:
    if name is None and (own := environment.IMAGE_REFERENCE.get()):
        return own
    image = shelf.image(name) if name else shelf.default_image()
    if not image.reference:
        raise UsageError(
            f"image {image.name!r} has no reference in the catalog and can't be pulled; ask your administrator for one"
        )
    return image.reference


@contextmanager
def claim(room: Room) -> Iterator[str]:
    """Hold the name of an engine for a run that is about to be written: one that idles, or a new one."""
    folder = engine_dir()
    with writing(folder):
        lock = (private(folder) / "claims").open("w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two kernels must not take the same one
        found = engines.idle(api.connect(), room, idle_seconds() - MARGIN_SECONDS)
        yield found or f"{room.flavor}-{secrets.token_hex(2)}"


def manifest(engine: str, room: Room, nodes: int | None = None) -> dict[str, Any]:
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
    )
    flavor = catalog.load().flavor(room.flavor)
    return manifests.engine(engine, place, flavor, room.image_reference, nodes or room.nodes or 1)


def ensure(engine: str, room: Room, nodes: int) -> bool:
    """See to it that an engine is there or comes; tell whether it had to be made. One that is going is waited for."""
    line = api.connect()
    known = _is_known(engine)
    deadline = time.monotonic() + GOING_SECONDS
    # What the operator made for it goes after it, and must not be taken for what it is to make now.
    while (found := line.engine(engine)) is not None or (known and line.is_left_of(engine)):
        if found is not None and not found["metadata"].get("deletionTimestamp"):
            return False
        if time.monotonic() > deadline:
            raise EngineError(
                f"engine {engine} is still going away; try again, or ask your administrator whether the operator runs"
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
    """Say how many nodes an engine should have, as soon as the operator has made some."""
    line = api.connect()
    if (now := line.node_count(engine)) is not None and now != nodes:
        line.scale(engine, nodes)


def node_count(engine: str) -> int:
    """Return how many nodes an engine should have, 0 if it isn't there."""
    return api.connect().node_count(engine) or 0


def standing(engine: str) -> Standing:
    """Return how far an engine is and what it lacks."""
    line = api.connect()
    cluster = line.engine(engine)
    if cluster is None:
        return Standing(exists=False)
    return judge(cluster, line.node_count(engine), line.pods(engine), line.events(), time.time())


def exists(engine: str) -> bool:
    """Tell whether an engine is there or comes."""
    found = api.connect().engine(engine)
    return found is not None and not found["metadata"].get("deletionTimestamp")


def release(engine: str) -> None:
    """Take an engine away and wait until its scheduler can't write any more."""
    line = api.connect()
    line.delete(engine)
    _hang_up(engine)
    deadline = time.monotonic() + GOING_SECONDS
    while any(pod["metadata"]["labels"].get(labels.DASK_COMPONENT) == "scheduler" for pod in line.pods(engine)):
        if time.monotonic() > deadline:
            raise EngineError(f"the scheduler of engine {engine} does not end")
        time.sleep(TICK_SECONDS)


def connect(engine: str = "") -> EngineClient:
    """Return the line to an engine that runs; one per process and engine."""
    with _locks[engine]:
        client = _clients.get(engine)
        if client is not None and client.alive:
            return client
        _hang_up(engine)
        status = credentials.read(engine)
        client = _clients[engine] = EngineClient(status["address"], credentials.security(status))
        return client


def _hang_up(engine: str) -> None:
    if (client := _clients.pop(engine, None)) is not None:
        client.close()


def prepare() -> None:
    """Load what the first run needs."""
    api.connect()
    import distributed  # noqa: F401 - a third of a second


def start(flavor: str | None = None, nodes: int | None = None) -> dict[str, Any]:
    """Have an engine made before a run needs it; it goes away again if none comes."""
    room = check(RunSpec(target=Target("function", "start"), ranks=Ranks(nodes or 1, nodes or 1), flavor=flavor))
    with claim(room) as engine:
        if not ensure(engine, room, nodes or 1):
            resize(engine, nodes or 1)
    return status()


def status() -> dict[str, Any]:
    """Return the engines with their flavor, nodes, GPUs, runs, and for how long they have been idle."""
    return {"engines": engines.listing(api.connect())}


def stop(flavor: str | None = None) -> bool:
    """End the engines, all or those of a flavor; runs on them go on when somebody attaches to them."""
    line = api.connect()
    names = [
        cluster["metadata"]["name"]
        for cluster in line.engines()
        if flavor in {None, cluster["metadata"]["labels"][labels.FLAVOR]}
    ]
    for name in names:
        credentials.mark_stopped(name)
        line.delete(name)
        _hang_up(name)
    return bool(names)
