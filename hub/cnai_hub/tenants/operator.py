"""The operator's deployment and resource definitions, and the claim for releases; the administrator applies them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING

from cnai import programs
from cnai.labels import OPERATOR, OPERATOR_ROLE, RELEASES, ROLE

if TYPE_CHECKING:
    from cnai.foreign import Manifest
    from cnai_hub.tenants.cluster import Cluster

_PROBE_PORT = 8080
_LABELS = {ROLE: OPERATOR_ROLE, "app.kubernetes.io/name": OPERATOR}
_RESOURCES = "dask_kubernetes/operator/deployment/helm/dask-kubernetes-operator/crds"


class NoResources(Exception):
    """The package that contains the resource definitions is not installed here."""


def definitions() -> list[Manifest]:
    """Return the definitions of DaskCluster and related resources, from the package that the operator runs."""
    import yaml

    try:
        # Don't import the package: it loads Dask, kopf and clients of Kubernetes.
        folder = distribution("dask-kubernetes").locate_file(_RESOURCES)
    except PackageNotFoundError:
        raise NoResources(
            "dask-kubernetes isn't installed here; run this in the hub's image, or after `make install-dev`"
        ) from None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # five times as fast, in all wheels of PyYAML
    found: list[Manifest] = []
    for name in ("daskcluster", "daskworkergroup", "daskjob", "daskautoscaler"):
        found += [each for each in yaml.load_all(folder.joinpath(f"{name}.yaml").read_text(), loader) if each]
    return found


def releases(cluster: Cluster) -> Manifest:
    """Return the claim that the hub mounts, so that published notebooks outlive its pod."""
    spec: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": f"{cluster.releases_gib}Gi"}},
    }
    if cluster.storage_class:
        spec["storageClassName"] = cluster.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": RELEASES, "namespace": cluster.hub_namespace},
        "spec": spec,
    }


def deployment(cluster: Cluster) -> Manifest:
    """Return the operator's deployment, which never runs more than one pod."""
    container = {
        "name": "operator",
        "image": cluster.hub_image,
        "args": ["python", "-m", programs.OPERATOR, f"--liveness=http://0.0.0.0:{_PROBE_PORT}/healthz"],
        # Libraries write to the home folder; the root filesystem is read-only.
        "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108 - a volume of its own
        "ports": [{"name": "healthz", "containerPort": _PROBE_PORT}],
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": _PROBE_PORT},
            "initialDelaySeconds": 30,
            "periodSeconds": 20,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
        "resources": {"requests": {"cpu": "50m", "memory": "192Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],  # noqa: S108 - a volume of its own
    }
    pod = {
        "serviceAccountName": cluster.operator_account,
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 100,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "64Mi"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": OPERATOR, "namespace": cluster.hub_namespace, "labels": _LABELS},
        "spec": {
            "replicas": 1,
            # Two operators would both handle each event and create twice the nodes.
            "strategy": {"type": "Recreate"},
            "revisionHistoryLimit": 1,
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": pod},
        },
    }
