"""Address backend: any Dask cluster that runs our preloads, by the address of its scheduler."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from cnai import catalog
from cnai.engine.control.client import EngineClient
from cnai.engine.records import Room
from cnai.errors import UsageError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cnai.spec import RunSpec


class AddressBackend:
    """A Dask scheduler that somebody else started, with `--preload cnai.engine.supervisor`.

    Its workers need `--preload cnai.engine.node --resources "node=1"` and the store under the same path as here
    (`CNAI_STORE`).
    """

    self_healing = False

    def __init__(self, address: str) -> None:
        self._address = address

    def check(self, spec: RunSpec) -> Room:
        """Take cpu and gpus per node from the flavor."""
        if spec.flavor is None:
            return Room()
        flavor = catalog.load().flavor(spec.flavor)
        return Room(cpu=flavor.cpu, gpus=flavor.gpus)

    def claim(self, _: Room) -> AbstractContextManager[str]:
        """Hold no name: the address is enough."""
        return nullcontext("")

    def connect(self, _: str = "") -> EngineClient:
        """Connect to the scheduler."""
        return EngineClient(self._address)

    def prepare(self) -> None:
        """Do nothing: it runs already."""

    def start(self, flavor: str | None = None, nodes: int | None = None) -> dict[str, Any]:
        """Return the status of what runs already; what it consists of is for whoever started it to say."""
        if flavor is not None or nodes is not None:
            raise UsageError(f"{self._address} was not started by cnai; its nodes are started where it was started")
        return self.status()

    def status(self) -> dict[str, Any]:
        """Return the engine's nodes and runs."""
        return {**self.connect().status()}

    def stop(self, flavor: str | None = None) -> bool:  # noqa: ARG002
        """Refuse: who started the cluster stops it."""
        raise UsageError(f"{self._address} was not started by cnai; stop it where it was started")
