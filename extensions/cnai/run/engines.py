"""Engines: what people do with those of the default backend, all of them at once."""

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

        On this machine that is one, with its address, pid, nodes and runs; on Kubernetes each has flavor, nodes, GPUs,
        runs and what it waits for.
        """
        return backends.get(backends.default()).status()

    def start(self, flavor: str | None = None, nodes: int | None = None) -> Engines:
        """Start an engine before a run needs it; return all engines. Flavor and nodes are for Kubernetes."""
        return backends.get(backends.default()).start(flavor, nodes)

    def stop(self, flavor: str | None = None) -> bool:
        """End the engines with everything on them, or those of a flavor; tell whether there was one.

        Runs that were going on are resumed by `attach`.
        """
        return backends.get(backends.default()).stop(flavor)


cluster = Cluster()
