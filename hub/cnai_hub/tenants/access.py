"""Access: the roles of the hub, the operator and a tenant's notebook at the API server.

None of them may read secrets. The hub binds a role to itself in each tenant's namespace and so has no rights in other
namespaces. Admission policies could not ensure that: they don't see reads, only authorization does.
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
    """Return the cluster roles; only those of hub and operator are bound cluster-wide."""
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
            # The operator creates the worker groups; a tenant only sets their number of workers.
            _rule(DASK_GROUP, "daskworkergroups", *_READ),
            _rule(DASK_GROUP, "daskclusters/scale daskworkergroups/scale", "get", "patch", "update"),
            # To find out why a run doesn't start, and to model its pods on the notebook's own.
            _rule("", "pods pods/log services events resourcequotas persistentvolumeclaims", *_READ),
            _rule("apps", "deployments replicasets", *_READ),
        ),
        _role(
            OPERATOR,
            _rule("apiextensions.k8s.io", "customresourcedefinitions", "list", "watch"),
            _rule("", "namespaces", "list", "watch"),
            _rule(DASK_GROUP, "daskclusters daskworkergroups", *_READ, "patch"),
            # The operator deletes an idle Dask cluster, which releases its GPUs even if its notebook no longer exists.
            _rule(DASK_GROUP, DASK_CLUSTERS, "delete"),
            _rule(DASK_GROUP, "daskworkergroups", "create"),
            _rule(DASK_GROUP, "daskworkergroups/scale", "get", "patch"),
            # Tenants may not create these, but the operator's handlers watch them.
            _rule(DASK_GROUP, "daskjobs daskautoscalers", *_READ),
            _rule("", "pods", *_READ),
            _rule("", "services", *_READ, "create", "patch"),
            _rule("apps", "deployments", *_READ, "create", "patch", "delete"),
            _rule("", "events", "create"),
        ),
    ]


def cluster_bindings(cluster: Cluster) -> list[Manifest]:
    """Return the operator's account, and the cluster-wide bindings of hub and operator."""
    return [
        _account(cluster.hub_namespace, cluster.operator_account),
        _binding(HUB, HUB, cluster.hub_namespace, cluster.hub_account),
        _binding(OPERATOR, OPERATOR, cluster.hub_namespace, cluster.operator_account),
    ]


def hub_binding(namespace: str, cluster: Cluster) -> Manifest:
    """Return the binding that lets the hub work in a tenant's namespace."""
    return _binding("hub", HUB_IN_TENANT, cluster.hub_namespace, cluster.hub_account, inside=namespace)


def tenant_binding(namespace: str) -> Manifest:
    """Return the binding that lets a notebook start Dask clusters in its own namespace."""
    return _binding(NOTEBOOK, TENANT_ROLE, namespace, NOTEBOOK, inside=namespace)


def accounts(namespace: str) -> list[Manifest]:
    """Return the service accounts of a tenant; a pod gets a token only if it asks for one."""
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
    """Bind a cluster role to the account `account` of namespace `of`: in the namespace `inside`, or cluster-wide."""
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding" if inside else "ClusterRoleBinding",
        "metadata": {"name": name, **({"namespace": inside} if inside else {})},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": of}],
    }
