"""Tenants: a namespace for every user, as manifests.

Pure functions of who the user is, what their groups may start, and what the administrator says about the cluster.
The hub applies `manifests` in their order, as itself; an administrator applies `cluster_manifests` once:
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
    """Return the namespace of a user; the labels hold its pods to the restricted Pod Security Standard."""
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
            # The exact name: a label can't hold every one.
            "annotations": {USER: user},
        },
    }


def manifests(user: str, groups: Collection[str], catalog: Catalog, cluster: Cluster) -> list[Manifest]:
    """Return what belongs into a user's namespace and the namespace itself, in the order of creation.

    The hub may do nothing in there before the second one is applied, which binds its own role;
    the API server needs a moment to see that.
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
    """Return what an administrator applies once per cluster: resources, roles and the fences around them, the operator.

    Without a `hub_image` the operator's pod is left out.
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
    """Say why a namespace that exists already can't be this user's; empty when it is theirs."""
    metadata = found["metadata"]
    owner = (metadata.get("annotations") or {}).get(USER)
    if TENANT in (metadata.get("labels") or {}) and owner == user:
        return ""
    whose = f"belongs to {owner!r}" if owner else "was not created by cnai"
    return f"namespace {metadata['name']!r} {whose}, so {user!r} can't use it; ask your administrator to delete it"
