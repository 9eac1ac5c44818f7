"""A cached view of all nodes and pods, renewed at most every few seconds, however many people open the spawn page."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cnai_hub.kubernetes import capacity

if TYPE_CHECKING:
    from cnai_hub.kubernetes.api import Api

_FRESH_SECONDS = 3.0


class Survey:
    """The free resources of the nodes, at most a few seconds old."""

    def __init__(self) -> None:
        self._nodes: tuple[capacity.Node, ...] = ()
        self._until = 0.0

    async def nodes(self, api: Api, *, now: bool = False) -> tuple[capacity.Node, ...]:
        """Return the free resources of each node; with `now`, don't use the cache."""
        if now or time.monotonic() > self._until:
            # resourceVersion 0: the API server answers from its cache, not from etcd.
            nodes = await api.get("/api/v1/nodes", resourceVersion="0")
            pods = await api.get("/api/v1/pods", resourceVersion="0")
            self._nodes = capacity.free((nodes or {}).get("items") or (), (pods or {}).get("items") or ())
            self._until = time.monotonic() + _FRESH_SECONDS
        return self._nodes
