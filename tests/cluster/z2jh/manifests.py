"""Objects of a release: hub and proxy with their Deployments, Services, policies and what they mount."""

from __future__ import annotations

import json
import secrets as random
from hashlib import sha256
from pathlib import Path
from typing import Any

from z2jh.defaults import DEFAULTS, merged
from z2jh.policies import policy

ETC = "/usr/local/etc/jupyterhub"
NAME = "jupyterhub"
_IN_POD = ("jupyterhub_config.py", "z2jh.py")


def new_secrets() -> dict[str, str]:
    """Return what the chart generates at the first installation and keeps at upgrades."""
    return {
        "hub.config.ConfigurableHTTPProxy.auth_token": random.token_hex(32),
        "hub.config.JupyterHub.cookie_secret": random.token_hex(32),
        "hub.config.CryptKeeper.keys": random.token_hex(32),
    }


def manifests(
    given: dict[str, Any], *, namespace: str, secrets: dict[str, str], release: str = "cnai"
) -> list[dict[str, Any]]:
    """Return the objects in the order of their creation: a pod sees Services that were there before it."""
    values = merged(DEFAULTS, given)
    made = [
        *_accounts(values, namespace),
        _secret(values, namespace, release, secrets),
        _config(),
        *_claims(values),
        *_services(values),
        policy("hub", values["hub"]["networkPolicy"], _hub_ingress(), _hub_egress()),
        policy("proxy", values["proxy"]["chp"]["networkPolicy"], _proxy_ingress(), _proxy_egress()),
        _proxy(values),
        _hub(values, release),
    ]
    # As the chart: pods start anew when what they have read changes.
    said = json.dumps([each for each in made if each and each["kind"] in {"Secret", "ConfigMap"}])
    made[-1]["spec"]["template"]["metadata"]["annotations"] = {"checksum/config": sha256(said.encode()).hexdigest()}
    for each in filter(None, made):
        each["metadata"].update(namespace=namespace)
        each["metadata"].setdefault("labels", _labels(each["metadata"]["name"], release))
    return [each for each in made if each]


def _labels(component: str, release: str) -> dict[str, str]:
    return {
        "app": NAME,
        "chart": f"{NAME}-4.4.0",
        "component": component,
        "release": release,
        "app.kubernetes.io/name": NAME,
        "app.kubernetes.io/instance": release,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": "Helm",
    }


def _accounts(values: dict[str, Any], namespace: str) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    if values["hub"]["serviceAccount"]["create"]:
        made.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "hub"}})
    if values["rbac"]["create"]:
        read = ["get", "watch", "list"]
        write = [*read, "create", "delete"]
        objects = ["pods", "persistentvolumeclaims", "secrets", "services"]
        rules = [
            {"apiGroups": [""], "resources": objects, "verbs": write},
            {"apiGroups": [""], "resources": ["events"], "verbs": read},
        ]
        group = "rbac.authorization.k8s.io"
        made += [
            {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": "hub"}, "rules": rules},
            {
                "apiVersion": f"{group}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": "hub"},
                "roleRef": {"apiGroup": group, "kind": "Role", "name": "hub"},
                "subjects": [{"kind": "ServiceAccount", "name": "hub", "namespace": namespace}],
            },
        ]
    return made


def _secret(values: dict[str, Any], namespace: str, release: str, secrets: dict[str, str]) -> dict[str, Any]:
    about = {
        "Chart": {"Name": NAME, "Version": "4.4.0"},
        "Release": {"Name": release, "Namespace": namespace, "Service": "Helm"},
    }
    services = values["hub"].get("services", {}).items()
    tokens = {f"hub.services.{name}.apiToken": service["apiToken"] for name, service in services}
    data = {"values.yaml": json.dumps({**values, **about}), **secrets, **tokens}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub"}, "stringData": data}


def _config() -> dict[str, Any]:
    folder = Path(__file__).parent / "inpod"
    data = {name: (folder / name).read_text() for name in _IN_POD}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hub"}, "data": data}


def _claims(values: dict[str, Any]) -> list[dict[str, Any]]:
    db = values["hub"]["db"]
    if db["type"] != "sqlite-pvc":
        return []
    spec = {"accessModes": db["pvc"]["accessModes"], "resources": {"requests": {"storage": db["pvc"]["storage"]}}}
    metadata = {"name": "hub-db-dir"}
    return [{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}]


def _services(values: dict[str, Any]) -> list[dict[str, Any]]:
    extra = values["hub"].get("service", {}).get("extraPorts", [])
    public = [{"name": "http", "port": 80, "targetPort": "http"}]
    return [
        _service("hub", "hub", [{"name": "hub", "port": 8081, "targetPort": "http"}, *extra]),
        _service("proxy-api", "proxy", [{"port": 8001, "targetPort": "api"}]),
        _service("proxy-public", "proxy", public, values["proxy"]["service"]["type"]),
    ]


def _service(name: str, component: str, ports: list[dict[str, Any]], kind: str = "ClusterIP") -> dict[str, Any]:
    spec = {"type": kind, "selector": {"app": NAME, "component": component}, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def _hub_ingress() -> list[dict[str, Any]]:
    return [{"ports": [{"port": "http"}], "from": _with_access("hub")}]


def _hub_egress() -> list[dict[str, Any]]:
    return [{"to": _component("proxy"), "ports": [{"port": 8001}]}]


def _proxy_ingress() -> list[dict[str, Any]]:
    return [
        {"ports": [{"port": "http"}, {"port": "https"}]},
        {"ports": [{"port": "http"}], "from": _with_access("proxy-http")},
        {"ports": [{"port": "api"}], "from": _with_access("proxy-api")},
    ]


def _proxy_egress() -> list[dict[str, Any]]:
    return [{"to": _component("hub"), "ports": [{"port": 8081}]}]


def _with_access(to: str) -> list[dict[str, Any]]:
    return [{"podSelector": {"matchLabels": {f"hub.jupyter.org/network-access-{to}": "true"}}}]


def _component(name: str) -> list[dict[str, Any]]:
    return [{"podSelector": {"matchLabels": {"app": NAME, "component": name}}}]


def _proxy(values: dict[str, Any]) -> dict[str, Any]:
    chp = values["proxy"]["chp"]
    hub = "http://hub:$(HUB_SERVICE_PORT)"
    container = {
        "name": "chp",
        "image": _image(chp["image"]),
        "command": [
            "configurable-http-proxy",
            "--ip=",
            "--api-ip=",
            "--api-port=8001",
            f"--default-target={chp.get('defaultTarget') or hub}",
            f"--error-target={chp.get('errorTarget') or hub + '/hub/error'}",
            "--port=8000",
            *chp.get("extraCommandLineFlags", []),
        ],
        "env": [_from_secret("CONFIGPROXY_AUTH_TOKEN", "hub.config.ConfigurableHTTPProxy.auth_token")],
        "ports": [{"name": "http", "containerPort": 8000}, {"name": "api", "containerPort": 8001}],
        "resources": chp.get("resources", {}),
        "securityContext": chp["containerSecurityContext"],
        **_probes(chp, "/_chp_healthz"),
    }
    access = {"hub.jupyter.org/network-access-hub": "true", "hub.jupyter.org/network-access-singleuser": "true"}
    spec = {"terminationGracePeriodSeconds": 60, "containers": [container], **chp.get("extraPodSpec", {})}
    return _deployment("proxy", access, spec)


def _hub(values: dict[str, Any], release: str) -> dict[str, Any]:
    hub = values["hub"]
    sqlite = hub["db"]["type"] == "sqlite-pvc"
    volumes = [
        {"name": "config", "configMap": {"name": "hub"}},
        {"name": "secret", "secret": {"secretName": "hub"}},
        *hub.get("extraVolumes", []),
        *([{"name": "pvc", "persistentVolumeClaim": {"claimName": "hub-db-dir"}}] if sqlite else []),
    ]
    mounts = [
        *({"mountPath": f"{ETC}/{name}", "subPath": name, "name": "config"} for name in _IN_POD),
        {"mountPath": f"{ETC}/secret/", "name": "secret"},
        *hub.get("extraVolumeMounts", []),
        *([{"mountPath": "/srv/jupyterhub", "name": "pvc"}] if sqlite else []),
    ]
    namespace = {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}
    debug = ["--debug"] if values["debug"]["enabled"] else []
    container = {
        "name": "hub",
        "image": _image(hub["image"]),
        "args": [
            "jupyterhub",
            "--config",
            f"{ETC}/jupyterhub_config.py",
            *debug,
            *(["--upgrade-db"] if hub["db"].get("upgrade", sqlite) else []),
        ],
        "env": [
            {"name": "PYTHONUNBUFFERED", "value": "1"},
            {"name": "HELM_RELEASE_NAME", "value": release},
            namespace,
            _from_secret("CONFIGPROXY_AUTH_TOKEN", "hub.config.ConfigurableHTTPProxy.auth_token"),
            *({"name": name, "value": value} for name, value in hub.get("extraEnv", {}).items()),
        ],
        "ports": [{"name": "http", "containerPort": 8081}],
        "resources": hub.get("resources", {}),
        "securityContext": hub["containerSecurityContext"],
        "volumeMounts": mounts,
        **_probes(hub, f"{hub['baseUrl']}hub/health"),
    }
    access = {f"hub.jupyter.org/network-access-{to}": "true" for to in ("proxy-api", "proxy-http", "singleuser")}
    spec = {
        "serviceAccountName": "hub",
        "securityContext": hub["podSecurityContext"],
        "volumes": volumes,
        "containers": [container],
        **hub.get("extraPodSpec", {}),
    }
    return _deployment("hub", access, spec)


def _deployment(name: str, labels: dict[str, str], spec: dict[str, Any]) -> dict[str, Any]:
    selector = {"app": NAME, "component": name}
    template = {"metadata": {"labels": {**_labels(name, "cnai"), **labels}}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": selector},
            "strategy": {"type": "Recreate"},
            "template": template,
        },
    }


def _image(image: dict[str, Any]) -> str:
    return f"{image['name']}:{image['tag']}"


def _from_secret(name: str, key: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": "hub", "key": key}}}


def _probes(component: dict[str, Any], path: str) -> dict[str, Any]:
    made = {}
    for kind in ("livenessProbe", "readinessProbe"):
        probe = dict(component[kind])
        if probe.pop("enabled"):
            made[kind] = {**probe, "httpGet": {"path": path, "port": "http"}}
    return made
