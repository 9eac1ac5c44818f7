"""Network policies of a release."""

from __future__ import annotations

from typing import Any

_METADATA = "169.254.169.254/32"
_PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
_DNS = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]


def policy(
    component: str, given: dict[str, Any], ingress: list[dict[str, Any]], egress: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """Return the policy of hub or proxy: what the chart needs, then what the values add."""
    if not given["enabled"]:
        return None
    spec = {
        "podSelector": {"matchLabels": {"app": "jupyterhub", "component": component}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [*ingress, *given["ingress"]],
        "egress": [*egress, *given["egress"], *_allowed(given["egressAllowRules"])],
    }
    metadata = {"name": component}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def _allowed(rules: dict[str, bool]) -> list[dict[str, Any]]:
    system = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    made = {
        "dnsPortsPrivateIPs": {"to": _blocks(_PRIVATE), "ports": _DNS},
        "dnsPortsKubeSystemNamespace": {"to": [system], "ports": _DNS},
        "nonPrivateIPs": {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [*_PRIVATE, _METADATA]}}]},
        "privateIPs": {"to": _blocks(_PRIVATE)},
        "cloudMetadataServer": {"to": _blocks([_METADATA])},
    }
    return [rule for name, rule in made.items() if rules[name]]


def _blocks(cidrs: list[str]) -> list[dict[str, Any]]:
    return [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]
