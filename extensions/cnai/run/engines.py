"""Engines: shows, starts and stops the engines of the default backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnai import backends

if TYPE_CHECKING:
    from cnai.backends.engines import Engines


class Cluster:
    """The engines that hold the runs: `cluster()` and `cluster.status()` show them, `start` and `stop` change them."""

    def __call__(self) -> Engines:
        """Return the engines that exist, as `status` does."""
        return self.status()

    def status(self) -> Engines:
        """Return the engines that exist; starts none.

        On this machine there is at most one, with its address, pid, nodes and runs; on Kubernetes each engine has
        flavor, nodes, GPUs, runs, and the reason why it waits.
        """
        return backends.get(backends.default()).status()

    def start(self, flavor: str | None = None, nodes: int | None = None) -> Engines:
        """Start an engine before a run needs it; return all engines. Flavor and nodes are for Kubernetes."""
        return backends.get(backends.default()).start(flavor, nodes)

    def stop(self, flavor: str | None = None) -> bool:
        """Stop all engines, or those of a flavor, and everything on them; tell whether there was one.

        `attach` resumes their runs.
        """
        return backends.get(backends.default()).stop(flavor)


cluster = Cluster()
