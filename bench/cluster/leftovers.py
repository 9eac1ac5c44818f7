"""Leftovers: lists a cluster's objects, to find those that the bench failed to delete."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from realcluster import Cluster

KINDS = (
    "namespaces,pods,persistentvolumeclaims,persistentvolumes,services,deployments,rolebindings,clusterrolebindings,"
    "validatingadmissionpolicies,validatingadmissionpolicybindings"
)
PATIENCE_SECONDS = 90.0


def listing(cluster: Cluster) -> set[str]:
    """Return the cluster's objects as kind/namespace/name."""
    items = cluster.get(KINDS, "-A")["items"]
    return {f"{each['kind']}/{each['metadata'].get('namespace', '')}/{each['metadata']['name']}" for each in items}


def since(cluster: Cluster, before: set[str]) -> list[str]:
    """Return the objects created since `before` that still exist after a grace period for deletions."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (left := listing(cluster) - before) and time.monotonic() < deadline:
        time.sleep(1)
    return sorted(left)
