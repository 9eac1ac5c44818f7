"""Who may ask the API server for what: the hub, the operator, and a tenant's notebook.

Nobody here reads secrets. The hub's rights inside a tenant's namespace come from a role that it binds to itself
there, so it has none elsewhere: admission policies see no reads, only authorization does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnai.labels import DASK_CLUSTERS, DASK_GROUP, HUB, HUB_IN_TENANT, NOTEBOOK, OPERATOR, TENANT_ROLE

if TYPE_CHECKING:
    from cnai.foreign import Manifest
    from cnai_hub.tenants.cluster import Cluster

_RBAC = "rbac.authorization.k8s.io"
_READ = ("get", "list", "watch")


def roles(cluster: Cluster) -> list[Manifest]:  # noqa: ARG001 - as its neighbors
    """Return the cluster roles; only two of them are bound cluster-wide."""
    return [
        _role(
            HUB,
            _rule("", "namespaces", "get", "create"),
            # KubeSpawner watches pods and events of all users at once; nodes say which GPUs are free.
            _rule("", "pods events nodes", *_READ),
            _rule(_RBAC, "rolebindings", "get", "create", "patch"),
            {**_rule(_RBAC, "clusterroles", "bind"), "resourceNames": [HUB_IN_TENANT, TENANT_ROLE]},
        ),
        _role(
            HUB_IN_TENANT,
            _rule("", "pods persistentvolumeclaims", *_READ, "create", "delete"),
            _rule("", "resourcequotas limitranges serviceaccounts", "get", "create", "patch"),
            _rule("networking.k8s.io", "networkpolicies", "get", "create", "patch"),
        ),
        _role(
            TENANT_ROLE,
            _rule(DASK_GROUP, DASK_CLUSTERS, *_READ, "create", "patch", "delete"),
            # The operator makes the worker groups; a tenant only says how many workers they have.
            _rule(DASK_GROUP, "daskworkergroups", *_READ),
            _rule(DASK_GROUP, "daskclusters/scale daskworkergroups/scale", "get", "patch", "update"),
            # What the reason of a run that doesn't start is read from, and what its pods are made like.
            _rule("", "pods pods/log services events resourcequotas persistentvolumeclaims", *_READ),
            _rule("apps", "deployments replicasets", *_READ),
        ),
        _role(
            OPERATOR,
            _rule("apiextensions.k8s.io", "customresourcedefinitions", "list", "watch"),
            _rule("", "namespaces", "list", "watch"),
            _rule(DASK_GROUP, "daskclusters daskworkergroups", *_READ, "patch"),
            # An idle Dask cluster is deleted: its GPUs are given back though its notebook is gone.
            _rule(DASK_GROUP, DASK_CLUSTERS, "delete"),
            _rule(DASK_GROUP, "daskworkergroups", "create"),
            _rule(DASK_GROUP, "daskworkergroups/scale", "get", "patch"),
            # Tenants may not make these; the operator's handlers watch them nevertheless.
            _rule(DASK_GROUP, "daskjobs daskautoscalers", *_READ),
            _rule("", "pods", *_READ),
            _rule("", "services", *_READ, "create", "patch"),
            _rule("apps", "deployments", *_READ, "create", "patch", "delete"),
            _rule("", "events", "create"),
        ),
    ]


def cluster_bindings(cluster: Cluster) -> list[Manifest]:
    """Return the operator's account, and the bindings of what hub and operator may do everywhere."""
    return [
        _account(cluster.hub_namespace, cluster.operator_account),
        _binding(HUB, HUB, cluster.hub_namespace, cluster.hub_account),
        _binding(OPERATOR, OPERATOR, cluster.hub_namespace, cluster.operator_account),
    ]


def hub_binding(namespace: str, cluster: Cluster) -> Manifest:
    """Return the binding by which the hub may work in a tenant's namespace."""
    return _binding("hub", HUB_IN_TENANT, cluster.hub_namespace, cluster.hub_account, inside=namespace)


def tenant_binding(namespace: str) -> Manifest:
    """Return the binding by which a notebook may start Dask clusters in its own namespace."""
    return _binding(NOTEBOOK, TENANT_ROLE, namespace, NOTEBOOK, inside=namespace)


def accounts(namespace: str) -> list[Manifest]:
    """Return the service accounts of a tenant; a pod that wants a token has to ask for it."""
    return [_account(namespace, NOTEBOOK), _account(namespace, "default")]


def _account(namespace: str, name: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": namespace},
        "automountServiceAccountToken": False,
    }


def _role(name: str, *rules: Manifest) -> Manifest:
    return {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": list(rules)}


def _rule(group: str, resources: str, *verbs: str) -> Manifest:
    return {"apiGroups": [group], "resources": resources.split(), "verbs": list(verbs)}


def _binding(name: str, role: str, of: str, account: str, *, inside: str = "") -> Manifest:
    """Bind a cluster role to the account `of`/`account`: inside one namespace, or everywhere."""
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding" if inside else "ClusterRoleBinding",
        "metadata": {"name": name, **({"namespace": inside} if inside else {})},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": of}],
    }
