"""Tenants: a namespace for every user, as manifests.

Pure functions of the user, their groups, the catalog and the administrator's settings for the cluster. The hub applies
`manifests` in order, with its own rights; an administrator applies `cluster_manifests` once:
`python -m cnai_hub.tenants | kubectl apply --server-side -f -`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnai.labels import TENANT, USER
from cnai_hub.tenants import access, admission, limits, network, operator
from cnai_hub.tenants.cluster import Cluster
from cnai_hub.tenants.names import namespace_name, tenant_label

if TYPE_CHECKING:
    from collections.abc import Collection

    from cnai.catalog import Catalog
    from cnai.foreign import Manifest

__all__ = ["Cluster", "cluster_manifests", "manifests", "namespace", "namespace_name", "refusal"]


def namespace(user: str) -> Manifest:
    """Return the namespace of a user; its labels enforce the restricted Pod Security Standard for its pods."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": namespace_name(user),
            "labels": {
                TENANT: tenant_label(user),
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/enforce-version": "latest",
                "pod-security.kubernetes.io/warn": "restricted",
                "pod-security.kubernetes.io/warn-version": "latest",
            },
            # The annotation has the exact name, because a label can't hold every name.
            "annotations": {USER: user},
        },
    }


def manifests(user: str, groups: Collection[str], catalog: Catalog, cluster: Cluster) -> list[Manifest]:
    """Return a user's namespace and the objects in it, in the order of creation.

    The second manifest binds the hub's own role; the hub has no rights in the namespace before it is applied, and
    the API server needs a moment to see it.
    """
    name = namespace_name(user)
    return [
        namespace(user),
        access.hub_binding(name, cluster),
        limits.quota(name, groups, catalog, cluster),
        limits.defaults(name),
        *network.policies(name, cluster),
        *access.accounts(name),
        access.tenant_binding(name),
    ]


def cluster_manifests(cluster: Cluster) -> list[Manifest]:
    """Return what an administrator applies once: resource definitions, roles, admission policies and the operator.

    Without a `hub_image`, the operator's deployment is left out.
    """
    return [
        *operator.definitions(),
        *access.roles(cluster),
        *access.cluster_bindings(cluster),
        *admission.policies(cluster),
        operator.releases(cluster),
        *([operator.deployment(cluster)] if cluster.hub_image else []),
    ]


def refusal(found: Manifest, user: str) -> str:
    """Return why an existing namespace can't be this user's; empty if it is theirs."""
    metadata = found["metadata"]
    owner = (metadata.get("annotations") or {}).get(USER)
    if TENANT in (metadata.get("labels") or {}) and owner == user:
        return ""
    whose = f"belongs to {owner!r}" if owner else "was not created by cnai"
    return f"namespace {metadata['name']!r} {whose}, so {user!r} can't use it; ask your administrator to delete it"
