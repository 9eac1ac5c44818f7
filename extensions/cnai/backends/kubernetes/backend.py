"""Kubernetes backend: one DaskCluster per engine, in the person's own namespace.

Engines come with a run, serve one run at a time, and are taken away by the operator when they have been idle, whether
a notebook lives or not. The run's record says which engine it has, so all of it can be made again.
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

    from cnai.backends.backend import Draft, Manifest
    from cnai.backends.line import Line, Listener
    from cnai.catalog import Catalog, Flavor
    from cnai.engine.store import RunFolder

RANKS_PER_CPU = 8
"""More ranks than this on a CPU only fight for it."""
MARGIN_SECONDS = 10.0
"""An engine that is taken away so soon takes no new run."""
NONE = "no engines running; each run starts one, idle ones are removed"


class KubernetesBackend:
    """Any number of engines; creating one returns before its pods run."""

    def check(self, spec: RunSpec) -> Room:
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

    def preview(self, room: Room) -> Manifest:
        """Return the DaskCluster of a new engine."""
        return fleet.manifest(f"{room.flavor}-0000", room, room.nodes or 1)

    def begin(self, draft: Draft) -> RunFolder:
        """Write a run and have an engine begin it: an idle one, or a new one."""
        with claim(draft.record.room) as engine:
            folder = draft.write(engine)
            PatientLine.to(folder).begin()
            return folder

    def line(self, folder: RunFolder, listener: Listener) -> Line:
        """Return a run's line to its engine, which may not exist at any time."""
        return PatientLine.to(folder, listener)

    def prepare(self) -> None:
        """Load what the first run needs."""
        api.connect()
        import distributed  # noqa: F401 - a third of a second

    def start(self, flavor: str | None = None, nodes: int | None = None) -> Engines:
        """Create an engine before a run needs it; it goes away again if no run comes."""
        ranks = Ranks(nodes or 1, nodes or 1)
        room = self.check(RunSpec(target=Target("function", "start"), ranks=ranks, flavor=flavor))
        with claim(room) as engine:
            if not fleet.ensure(engine, room, nodes or 1):
                fleet.resize(engine, nodes or 1)
        return self.status()

    def status(self) -> Engines:
        """Return the engines with their flavor, nodes, GPUs, runs, and for how long they have been idle."""
        return Engines(engines.listing(api.connect()), NONE)

    def stop(self, flavor: str | None = None) -> bool:
        """End the engines, all or those of a flavor; runs on them go on when somebody attaches to them."""
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
    """Hold the name of an engine for a run that is about to be written: one that idles, or a new one."""
    folder = engine_dir()
    with writing(folder):
        lock = (private(folder) / "claims").open("w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two kernels must not take the same one
        found = engines.idle(api.connect(), room, fleet.idle_seconds() - MARGIN_SECONDS)
        yield found or f"{room.flavor}-{secrets.token_hex(2)}"


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
