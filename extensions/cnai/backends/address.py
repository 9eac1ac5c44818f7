"""Address backend: any Dask cluster that runs our preloads, named by the address of its scheduler."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cnai import catalog
from cnai.backends.engines import Engines
from cnai.backends.line import DirectLine, begin
from cnai.engine.control.client import EngineClient
from cnai.engine.records import Room
from cnai.errors import UsageError

if TYPE_CHECKING:
    from cnai.backends.backend import Draft
    from cnai.backends.line import Line, Listener
    from cnai.engine.store import RunFolder
    from cnai.spec import RunSpec


class AddressBackend:
    """Uses a Dask scheduler that cnai did not start, run with `--preload cnai.engine.supervisor`.

    Its workers need `--preload cnai.engine.node --resources "node=1"` and the store under the same path as here
    (`CNAI_STORE`).
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._client: EngineClient | None = None
        self._lock = threading.Lock()

    def check(self, spec: RunSpec) -> Room:
        """Take cpu and gpus per node from the flavor."""
        if spec.flavor is None:
            return Room()
        flavor = catalog.load().flavor(spec.flavor)
        return Room(cpu=flavor.cpu, gpus=flavor.gpus)

    def preview(self, _: Room) -> None:
        """Return nothing: the nodes are already running."""

    def begin(self, draft: Draft) -> RunFolder:
        """Write a run and have the scheduler begin it; a scheduler that doesn't answer leaves no run."""
        self._connect()
        return begin(draft.write(), self._connect)

    def line(self, folder: RunFolder, listener: Listener) -> Line:
        """Return a run's line to the scheduler."""
        return DirectLine(folder, listener, self._connect)

    def prepare(self) -> None:
        """Do nothing: the cluster is already running."""

    def start(self, flavor: str | None = None, nodes: int | None = None) -> Engines:
        """Return the status of the running cluster; refuses a flavor and nodes, which cnai can't change here."""
        if flavor is not None or nodes is not None:
            raise UsageError(f"{self._address} was not started by cnai; start its nodes where the cluster was started")
        return self.status()

    def status(self) -> Engines:
        """Return the engine's nodes and runs."""
        return Engines([self._connect().status()])

    def stop(self, flavor: str | None = None) -> bool:  # noqa: ARG002
        """Raise UsageError: cnai did not start the cluster."""
        raise UsageError(f"{self._address} was not started by cnai; stop it where it was started")

    def _connect(self) -> EngineClient:
        """Return the line to the scheduler, one per process."""
        with self._lock:
            if self._client is not None and not self._client.alive:
                self._client.close()
                self._client = None
            self._client = self._client or EngineClient(self._address)
            return self._client
