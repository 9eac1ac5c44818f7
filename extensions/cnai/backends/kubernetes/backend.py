"""Kubernetes backend: one DaskCluster per engine, in the person's own namespace.

Each run starts an engine or reuses an idle one; an engine serves one run at a time. The operator removes idle engines,
even if no notebook runs. The run's record names its engine, so the engine can be recreated.
"""

from __future__ import annotations

import fcntl
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cnai import catalog, environment, labels
from cnai.backends import credentials
from cnai.backends.engines import Engines
from cnai.backends.kubernetes import api, engines, fleet
from cnai.backends.kubernetes.line import PatientLine
from cnai.engine.records import Room
from cnai.engine.store import writing
from cnai.errors import UsageError
from cnai.paths import engine_dir, private
from cnai.spec import Ranks, RunSpec, Target, nodes_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnai.backends.backend import Draft
    from cnai.backends.line import Line, Listener
    from cnai.catalog import Catalog, Flavor
    from cnai.engine.store import RunFolder
    from cnai.foreign import Manifest

RANKS_PER_CPU = 8
"""More ranks would only compete for the CPU."""
MARGIN_SECONDS = 10.0
"""An engine that will be removed this soon gets no new run."""
NONE = "no engines running; each run starts one, idle ones are removed"


class KubernetesBackend:
    """Creates any number of engines, without waiting for their pods."""

    def check(self, spec: RunSpec) -> Room:
        """Validate flavor, image and ranks against the catalog; return the engine's room."""
        offered = catalog.load()
        flavor = _flavor(spec.flavor, offered)
        most = flavor.gpus or RANKS_PER_CPU * max(1, int(flavor.cpu))
        nodes = nodes_for(spec.ranks.maximum, spec.nodes, most)
        if spec.nodes is not None and nodes > spec.nodes:
            has = f"{flavor.gpus} GPU{'s' * (flavor.gpus > 1)}" if flavor.gpus else f"{flavor.cpu:g} CPU"
            raise UsageError(
                f"{spec.ranks.maximum} ranks need {nodes} nodes of flavor {flavor.name} ({has}: {most} ranks each);"
                f" given: --nodes {spec.nodes}"
            )
        return Room(
            cpu=flavor.cpu,
            gpus=flavor.gpus,
            nodes=nodes,
            ranks_per_node=most,
            flavor=flavor.name,
            image_reference=_image(spec.image, offered),
        )

    def preview(self, room: Room) -> Manifest:
        """Return the DaskCluster of a new engine."""
        return fleet.manifest(f"{room.flavor}-0000", room, room.nodes or 1)

    def begin(self, draft: Draft) -> RunFolder:
        """Write a run and let an idle or a new engine begin it."""
        with claim(draft.record.room) as engine:
            folder = draft.write(engine)
            PatientLine.to(folder).begin()
            return folder

    def line(self, folder: RunFolder, listener: Listener) -> Line:
        """Return a run's line to its engine, which need not exist yet or any more."""
        return PatientLine.to(folder, listener)

    def prepare(self) -> None:
        """Load what the first run needs."""
        api.connect()
        import distributed  # noqa: F401 - a third of a second

    def start(self, flavor: str | None = None, nodes: int | None = None) -> Engines:
        """Create an engine before a run needs it; the operator removes it if no run uses it."""
        ranks = Ranks(nodes or 1, nodes or 1)
        room = self.check(RunSpec(target=Target("function", "start"), ranks=ranks, flavor=flavor))
        with claim(room) as engine:
            if not fleet.ensure(engine, room, nodes or 1):
                fleet.resize(engine, nodes or 1)
        return self.status()

    def status(self) -> Engines:
        """Return the engines with their flavor, nodes, GPUs, runs and idle times."""
        return Engines(engines.listing(api.connect()), NONE)

    def stop(self, flavor: str | None = None) -> bool:
        """Delete the engines, all or those of a flavor; `attach` resumes their runs."""
        names = [
            cluster["metadata"]["name"]
            for cluster in api.connect().engines()
            if flavor in {None, cluster["metadata"]["labels"][labels.FLAVOR]}
        ]
        for name in names:
            credentials.mark_stopped(name)
            fleet.delete(name)
        return bool(names)


@contextmanager
def claim(room: Room) -> Iterator[str]:
    """Hold the name of an idle or a new engine until the run that will use it is written."""
    folder = engine_dir()
    with writing(folder):
        lock = (private(folder) / "claims").open("w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two kernels must not claim the same engine
        found = engines.idle(api.connect(), room, fleet.idle_seconds() - MARGIN_SECONDS)
        yield found or f"{room.flavor}-{secrets.token_hex(2)}"


def _flavor(name: str | None, offered: Catalog) -> Flavor:
    if chosen := name or environment.FLAVOR.get():
        return offered.flavor(chosen)
    return offered.default_flavor()


def _image(name: str | None, offered: Catalog) -> str:
    if name is None and (own := environment.IMAGE_REFERENCE.get()):
        return own
    image = offered.image(name) if name else offered.default_image()
    if not image.reference:
        raise UsageError(
            f"image {image.name!r} has no reference in the catalog and can't be pulled; ask your administrator for one"
        )
    return image.reference
