"""Network policies of a tenant's pods: deny all traffic except what notebooks, runs and apps need.

A tenant has three kinds of pods: notebook servers (KubeSpawner's label `component`), apps (`cnai.dev/role: app`), and
the schedulers and nodes of Dask clusters (`dask.org/cluster-name`). After the first policy, each one only allows more
traffic and names its reason. A cluster without a policy controller silently ignores policies; `cnai doctor` tests this
by trying a forbidden connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnai.labels import COMPONENT, DASK_COMPONENT, HUB_COMPONENT, OPERATOR_ROLE, PROXY_COMPONENT, ROLE, SCHEDULER

if TYPE_CHECKING:
    from cnai.foreign import Manifest
    from cnai_hub.tenants.cluster import Cluster

HUB_PORT = 8081
PROXY_PORT = 8000
DASHBOARD_PORT = 8787
# A number, because only KubeSpawner names the port of its pods.
SERVER_PORT = 8888

# RFC 1918, carrier-grade NAT, and link-local with the clouds' metadata servers. No pod has a loopback address.
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16")
PRIVATE_6 = ("fc00::/7", "fe80::/10")
# NodeLocal DNSCache listens on the node, so no pod selector matches it.
_NODE_LOCAL_DNS = "169.254.20.10/32"

_EVERY: Manifest = {}
_EXCEPT_APPS = {"matchExpressions": [{"key": ROLE, "operator": "NotIn", "values": ["app"]}]}
_SERVERS = {"matchLabels": {"component": "singleuser-server"}}
_SCHEDULERS = {"matchLabels": {DASK_COMPONENT: SCHEDULER}}


def policies(namespace: str, cluster: Cluster) -> list[Manifest]:
    """Return the network policies of a tenant, default deny first."""
    hub = _pods_of(cluster.hub_namespace, COMPONENT, HUB_COMPONENT)
    proxy = _pods_of(cluster.hub_namespace, COMPONENT, PROXY_COMPONENT)
    operator = _pods_of(cluster.hub_namespace, ROLE, OPERATOR_ROLE)
    found = [
        _policy(namespace, "default-deny", _EVERY, ingress=[], egress=[]),
        # Dask, torch.distributed and the notebook's client of both choose their ports. Apps are excluded, so that an
        # attacker who escapes from an app can't send code to a scheduler.
        _policy(
            namespace,
            "own-pods",
            _EXCEPT_APPS,
            ingress=[{"from": [{"podSelector": _EXCEPT_APPS}]}],
            egress=[{"to": [{"podSelector": _EXCEPT_APPS}]}],
        ),
        _policy(namespace, "dns", _EVERY, egress=[_dns()]),
        # Servers report to the hub and ask it to authenticate visitors; notebooks publish through the proxy.
        _policy(
            namespace,
            "hub",
            _SERVERS,
            ingress=[{"from": [hub, proxy], "ports": _tcp(SERVER_PORT)}],
            egress=[{"to": [hub], "ports": _tcp(HUB_PORT)}, {"to": [proxy], "ports": _tcp(PROXY_PORT)}],
        ),
        # To scale down, the operator asks the scheduler which workers it can stop.
        _policy(namespace, "operator", _SCHEDULERS, ingress=[{"from": [operator], "ports": _tcp(DASHBOARD_PORT)}]),
        _policy(namespace, "internet", _EXCEPT_APPS, egress=[{"to": _internet(cluster)}]),
    ]
    if cluster.api_servers:
        # Notebooks create Dask clusters; the pods of Dask clusters have no token.
        to_api = {"to": _blocks(cluster.api_servers), "ports": _tcp(cluster.api_port)}
        found.append(_policy(namespace, "api-server", _notebooks(), egress=[to_api]))
    if cluster.reachable:
        found.append(_policy(namespace, "reachable", _EXCEPT_APPS, egress=[{"to": _blocks(cluster.reachable)}]))
    return found


def _notebooks() -> Manifest:
    return {**_SERVERS, **_EXCEPT_APPS}


def _dns() -> Manifest:
    cluster_dns = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    ports = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    return {"to": [cluster_dns, *_blocks([_NODE_LOCAL_DNS])], "ports": ports}


def _internet(cluster: Cluster) -> list[Manifest]:
    six = [block for block in cluster.private if ":" in block]
    four = [block for block in cluster.private if ":" not in block]
    return [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": [*PRIVATE, *four]}},
        {"ipBlock": {"cidr": "::/0", "except": [*PRIVATE_6, *six]}},
    ]


def _blocks(cidrs: tuple[str, ...] | list[str]) -> list[Manifest]:
    return [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]


def _pods_of(namespace: str, key: str, value: str) -> Manifest:
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": {key: value}},
    }


def _tcp(port: int) -> list[Manifest]:
    return [{"port": port, "protocol": "TCP"}]


def _policy(
    namespace: str,
    name: str,
    pods: Manifest,
    *,
    ingress: list[Manifest] | None = None,
    egress: list[Manifest] | None = None,
) -> Manifest:
    """Return a policy for the given directions; an empty list denies all, None leaves a direction to other policies."""
    directions = {"Ingress": ingress, "Egress": egress}
    rules = {kind.lower(): rule for kind, rule in directions.items() if rule}
    types = [kind for kind, rule in directions.items() if rule is not None]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": pods, "policyTypes": types, **rules},
    }
