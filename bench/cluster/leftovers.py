"""What is on a cluster that somebody would have to own."""

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
    """Return what there is, as kind/namespace/name."""
    items = cluster.get(KINDS, "-A")["items"]
    return {f"{each['kind']}/{each['metadata'].get('namespace', '')}/{each['metadata']['name']}" for each in items}


def since(cluster: Cluster, before: set[str]) -> list[str]:
    """Return what has come and not gone, when all that is going had its time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (left := listing(cluster) - before) and time.monotonic() < deadline:
        time.sleep(1)
    return sorted(left)
