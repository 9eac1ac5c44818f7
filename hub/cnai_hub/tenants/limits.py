"""Limits of a tenant: a quota computed from the flavors of their groups, and defaults for containers without limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnai.labels import DASK_CLUSTERS, DASK_GROUP, GPU

if TYPE_CHECKING:
    from collections.abc import Collection

    from cnai.catalog import Catalog
    from cnai.foreign import Manifest
    from cnai_hub.tenants.cluster import Cluster

QUOTA = "tenant"

# Reserved per Dask cluster, for its scheduler and other small pods of the tenant.
_SCHEDULER_CPU = 1
_SCHEDULER_MEMORY_GIB = 4


def quota(namespace: str, groups: Collection[str], catalog: Catalog, cluster: Cluster) -> Manifest:
    """Return the quota of a tenant: `cluster.machines` machines of the largest flavor that they may start."""
    flavors = catalog.for_groups(groups).flavors
    cpu = cluster.machines * max((flavor.cpu for flavor in flavors), default=0)
    memory_gib = cluster.machines * max((flavor.memory_gib for flavor in flavors), default=0)
    hard = {
        "requests.cpu": f"{cpu + cluster.dask_clusters * _SCHEDULER_CPU:g}",
        "limits.memory": f"{memory_gib + cluster.dask_clusters * _SCHEDULER_MEMORY_GIB:g}Gi",
        f"requests.{GPU}": str(cluster.machines * max((flavor.gpus for flavor in flavors), default=0)),
        "pods": str(cluster.pods),
        "persistentvolumeclaims": str(cluster.claims),
        "requests.storage": f"{cluster.storage_gib}Gi",
        "services.loadbalancers": "0",
        "services.nodeports": "0",
        # Devices claimed by dynamic resource allocation would not count as GPUs.
        "count/resourceclaims.resource.k8s.io": "0",
        f"count/{DASK_CLUSTERS}.{DASK_GROUP}": str(cluster.dask_clusters),
        # The operator creates a deployment for each worker of a Dask cluster, and the quota of pods limits only pods.
        "count/deployments.apps": str(cluster.pods),
    }
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": QUOTA, "namespace": namespace},
        "spec": {"hard": hard},
    }


def defaults(namespace: str) -> Manifest:
    """Return default limits for containers that set none, which the quota would refuse.

    `max` is not set: Kubernetes uses it as the default for resources that have no other, including GPUs.
    """
    limit = {"type": "Container", "default": {"memory": "1Gi"}, "defaultRequest": {"cpu": "100m", "memory": "256Mi"}}
    return {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": "defaults", "namespace": namespace},
        "spec": {"limits": [limit]},
    }
