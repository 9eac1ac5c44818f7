"""Local backend: two detached processes of this user, a Dask scheduler and one Dask worker.

No kernel owns them, so runs outlive kernels. They end after an hour without a run.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from cnai import catalog
from cnai.backends.engines import Engines
from cnai.backends.line import DirectLine, begin
from cnai.backends.local import client
from cnai.engine.records import Room
from cnai.errors import UsageError

if TYPE_CHECKING:
    from cnai.backends.backend import Draft
    from cnai.backends.line import Line, Listener
    from cnai.engine.store import RunFolder
    from cnai.spec import RunSpec

ENGINE = "local"
RANKS_PER_CPU = 8
"""More ranks would only compete for the CPU."""


class LocalBackend:
    """One engine with one node, this machine."""

    def check(self, spec: RunSpec) -> Room:
        """Validate ranks, nodes and flavor against this machine; return the room for the ranks."""
        if find_spec("torch") is None:
            raise UsageError("torch isn't installed here; install it with: pip install 'cnai[torch]'")
        machine = catalog.this_machine()
        if spec.nodes not in {None, 1}:
            raise UsageError(f"the local backend has 1 node, this machine; given: --nodes {spec.nodes}")
        if spec.image is not None:
            catalog.load().image(spec.image)
        flavor = _flavor(spec, machine)
        most = flavor.gpus or max(16, RANKS_PER_CPU * int(machine.cpu))
        if spec.ranks.maximum > most:
            what = f"{flavor.gpus} GPUs" if flavor.gpus else f"{machine.cpu:g} CPUs"
            raise UsageError(f"{spec.ranks.maximum} ranks are more than {what} can hold; ranks may be 1 to {most}")
        return Room(cpu=flavor.cpu, gpus=flavor.gpus) if spec.flavor else Room()

    def preview(self, _: Room) -> None:
        """Return nothing: the only node needs no manifest."""

    def begin(self, draft: Draft) -> RunFolder:
        """Write a run and let the engine begin it; starts the engine if necessary."""
        return begin(draft.write(ENGINE), client.connect)

    def line(self, folder: RunFolder, listener: Listener) -> Line:
        """Return a run's line to the engine; using the line starts the engine if necessary."""
        return DirectLine(folder, listener, client.connect)

    def prepare(self) -> None:
        """Start the engine."""
        client.launch()
        client.connect()

    def start(self, flavor: str | None = None, nodes: int | None = None) -> Engines:
        """Start the engine if necessary; return it."""
        if flavor is not None or nodes not in {None, 1}:
            raise UsageError("the local engine uses all of this machine; start it without --flavor and --nodes")
        return Engines([client.connect().status()])

    def status(self) -> Engines:
        """Return the engine if it runs; starts none."""
        return Engines([client.connect().status()] if client.running() else [])

    def stop(self, flavor: str | None = None) -> bool:
        """Stop the engine and everything on it."""
        if flavor is not None:
            raise UsageError("the local engine uses all of this machine; stop it without --flavor")
        return client.stop()


def _flavor(spec: RunSpec, machine: catalog.Flavor) -> catalog.Flavor:
    if spec.flavor is None:
        return machine
    return catalog.load().flavor_on(machine, spec.flavor)
