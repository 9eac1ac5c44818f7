"""Address backend: any Dask cluster that runs our preloads, by the address of its scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnai import catalog
from cnai.engine.client import EngineClient
from cnai.errors import UsageError

if TYPE_CHECKING:
    from cnai.spec import RunSpec


class AddressBackend:
    """A Dask scheduler that somebody else started, with `--preload cnai.engine.supervisor`.

    Its workers need `--preload cnai.engine.node --resources "node=1"` and the store under the same path as here
    (`CNAI_STORE`).
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def check(self, spec: RunSpec) -> dict[str, Any]:
        """Take cpu and gpus per node from the flavor."""
        if spec.flavor is None:
            return {"cpu": None, "gpus": None}
        flavor = catalog.load().flavor(spec.flavor)
        return {"cpu": flavor.cpu, "gpus": flavor.gpus}

    def connect(self) -> EngineClient:
        """Connect to the scheduler."""
        return EngineClient(self._address)

    def stop(self) -> bool:
        """Refuse: who started the cluster stops it."""
        raise UsageError(f"{self._address} was not started by cnai; stop it where it was started")
