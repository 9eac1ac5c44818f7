"""Values as helm puts them together, on top of those defaults of the chart that matter here."""

from __future__ import annotations

import copy
from typing import Any

_CONTEXT: dict[str, Any] = {
    "runAsUser": 65534,
    "runAsGroup": 65534,
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
_PROBES: dict[str, Any] = {
    "livenessProbe": {
        "enabled": True,
        "initialDelaySeconds": 300,
        "periodSeconds": 10,
        "failureThreshold": 30,
        "timeoutSeconds": 3,
    },
    "readinessProbe": {
        "enabled": True,
        "initialDelaySeconds": 0,
        "periodSeconds": 2,
        "failureThreshold": 1000,
        "timeoutSeconds": 1,
    },
}
_EGRESS = {
    "cloudMetadataServer": True,
    "dnsPortsKubeSystemNamespace": True,
    "dnsPortsPrivateIPs": True,
    "nonPrivateIPs": True,
    "privateIPs": True,
}
_POLICY: dict[str, Any] = {"enabled": True, "ingress": [], "egress": [], "egressAllowRules": _EGRESS}

DEFAULTS: dict[str, Any] = {
    "fullnameOverride": "",
    "imagePullSecrets": [],
    "imagePullSecret": {"create": False, "automaticReferenceInjection": True},
    "hub": {
        "config": {"JupyterHub": {"admin_access": True, "authenticator_class": "dummy"}},
        "baseUrl": "/",
        "concurrentSpawnLimit": 64,
        "consecutiveFailureLimit": 5,
        "allowNamedServers": False,
        "templatePaths": [],
        "templateVars": {},
        "loadRoles": {},
        "services": {},
        "extraConfig": {},
        "extraEnv": {},
        "db": {"type": "sqlite-pvc", "pvc": {"accessModes": ["ReadWriteOnce"], "storage": "1Gi"}},
        "podSecurityContext": {
            "runAsNonRoot": True,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containerSecurityContext": {
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "networkPolicy": _POLICY,
        "serviceAccount": {"create": True},
        **_PROBES,
    },
    "rbac": {"create": True},
    "proxy": {
        "service": {"type": "LoadBalancer"},
        "chp": {
            # Images of the chart are without their registry here.
            "image": {"name": "configurable-http-proxy", "tag": "5.3.0"},
            "containerSecurityContext": _CONTEXT,
            "networkPolicy": {**_POLICY, "allowedIngressPorts": ["http", "https"]},
            **_PROBES,
        },
    },
    "singleuser": {
        "networkTools": {"image": {"name": "k8s-network-tools", "tag": "4.4.0"}, "resources": {}},
        "cloudMetadata": {"blockWithIptables": True, "ip": "169.254.169.254"},
        "events": True,
        "extraTolerations": [],
        "nodeSelector": {},
        "extraNodeAffinity": {"required": [], "preferred": []},
        "extraPodAffinity": {"required": [], "preferred": []},
        "extraPodAntiAffinity": {"required": [], "preferred": []},
        "extraAnnotations": {},
        "extraLabels": {"hub.jupyter.org/network-access-hub": "true"},
        "extraEnv": {},
        "lifecycleHooks": {},
        "initContainers": [],
        "extraContainers": [],
        "allowPrivilegeEscalation": False,
        "uid": 1000,
        "fsGid": 100,
        "extraFiles": {},
        "storage": {
            "type": "dynamic",
            "extraLabels": {},
            "static": {"subPath": "{username}"},
            "capacity": "10Gi",
            "homeMountPath": "/home/jovyan",
            "dynamic": {"volumeNameTemplate": "volume-{user_server}", "storageAccessModes": ["ReadWriteOnce"]},
        },
        "image": {"name": "k8s-singleuser-sample", "tag": "4.4.0", "pullSecrets": []},
        "startTimeout": 300,
        "memory": {"guarantee": "1G"},
        "extraResource": {"limits": {}, "guarantees": {}},
        "cmd": "jupyterhub-singleuser",
        "extraPodConfig": {},
        "profileList": [],
    },
    "scheduling": {
        "userScheduler": {"enabled": True},
        "podPriority": {"enabled": False},
        "userPods": {
            "tolerations": [
                {"key": key, "operator": "Equal", "value": "user", "effect": "NoSchedule"}
                for key in ("hub.jupyter.org/dedicated", "hub.jupyter.org_dedicated")
            ],
            "nodeAffinity": {"matchNodePurpose": "prefer"},
        },
    },
    "cull": {"enabled": True, "adminUsers": True, "timeout": 3600, "every": 600, "concurrency": 10, "maxAge": 0},
    "debug": {"enabled": False},
}


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Put later values over earlier ones: maps are merged, everything else is replaced, null removes."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in copy.deepcopy(layer).items():
            inner = result.get(key)
            if isinstance(value, dict) and isinstance(inner, dict):
                result[key] = merged(inner, value)
            elif value is None:
                result.pop(key, None)
            else:
                result[key] = value
    return result
