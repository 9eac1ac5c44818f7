"""Manifests: an engine on Kubernetes, as pure functions; tests compare whole manifests.

An engine is one DaskCluster: a scheduler pod, and one pod per node. Both run the notebook's own image, mount the
person's home under the same path, hold no token, and satisfy the restricted Pod Security Standard and the policies of
tenants (`cnai_hub.tenants.admission`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cnai import environment as variables
from cnai import podspec
from cnai.labels import DASK_CLUSTER, DASK_COMPONENT, DASK_GROUP, DASK_VERSION, FLAVOR, IMAGE, SCHEDULER
from cnai.programs import ENGINE_POD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnai.catalog import Flavor
    from cnai.foreign import Manifest

COMM_PORT, API_PORT = 8786, 8787
GRACE_SECONDS = 60
"""From SIGTERM to SIGKILL: time for a step and its checkpoint."""

# A port name: the resource definition accepts only text, which a probe treats as a name.
_HEALTH = {"path": "/health", "port": "health"}
SMALLEST_CPU = 0.05
GUARANTEED_CPU = 0.1
"""Guaranteed share of a flavor's CPUs; pods compete for the rest. Memory and GPUs are never shared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The place of a person's pods: namespace, volume claim of the home, and environment of their notebook.

    `extras` are what the administrator adds to all of them.
    """

    namespace: str
    claim: str
    home: str
    environment: Mapping[str, str] = field(default_factory=dict)
    idle_seconds: int = 60
    extras: podspec.Extras = field(default_factory=podspec.Extras)


def engine(name: str, place: Place, flavor: Flavor, image: str, nodes: int) -> Manifest:
    """Return an engine's DaskCluster."""
    return {
        "apiVersion": f"{DASK_GROUP}/{DASK_VERSION}",
        "kind": "DaskCluster",
        "metadata": {
            "name": name,
            "namespace": place.namespace,
            "labels": {FLAVOR: flavor.name},
            "annotations": {IMAGE: image},
        },
        "spec": {
            "idleTimeout": place.idle_seconds,
            "scheduler": {"spec": _scheduler(name, place, image), "service": _service(name)},
            "worker": {"replicas": nodes, "spec": _node(name, place, flavor, image)},
        },
    }


def address(name: str, namespace: str) -> str:
    """Return the address of an engine's scheduler, for pods of its namespace."""
    return f"tls://{name}-scheduler.{namespace}:{COMM_PORT}"


def node_group(name: str) -> str:
    """Return the name of the worker group that the operator creates for an engine's nodes."""
    return f"{name}-default"


def _service(name: str) -> Manifest:
    # No targetPort: the resource definition accepts only text, a Service requires a number.
    return {
        "type": "ClusterIP",
        "selector": {DASK_CLUSTER: name, DASK_COMPONENT: SCHEDULER},
        "ports": [{"name": "tcp-comm", "port": COMM_PORT}, {"name": "http-dashboard", "port": API_PORT}],
    }


def _scheduler(name: str, place: Place, image: str) -> Manifest:
    resources = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    pod = _pod("scheduler", name, place, image, resources, podspec.without_gpus())
    # With this probe the operator recognizes a cluster that has lost its scheduler for good.
    pod["containers"][0]["readinessProbe"] = {"httpGet": _HEALTH, "periodSeconds": 1, "timeoutSeconds": 5}
    return _placed(pod, place, [], {})


def _node(name: str, place: Place, flavor: Flavor, image: str) -> Manifest:
    guaranteed = max(SMALLEST_CPU, GUARANTEED_CPU * flavor.cpu)
    resources = {
        "requests": {"cpu": f"{1000 * guaranteed:.0f}m", "memory": _mebibytes(flavor.memory_gib)},
        "limits": {
            "cpu": f"{1000 * flavor.cpu:.0f}m",
            "memory": _mebibytes(flavor.memory_gib),
            **podspec.gpu_limits(flavor),
        },
    }
    pod = _pod("node", name, place, image, resources, podspec.without_gpus(flavor))
    volume, mount = podspec.shared_memory(_mebibytes(flavor.memory_gib / 2))
    pod["volumes"] += [volume, *place.extras.volumes]
    pod["containers"][0]["volumeMounts"] += [mount, *place.extras.volume_mounts]
    return _placed(pod, place, podspec.tolerations(flavor), podspec.node_selector(flavor))


def _placed(pod: Manifest, place: Place, tolerations: list[dict[str, str]], selector: dict[str, str]) -> Manifest:
    """Add what the administrator gives to a pod; its own fields come first."""
    chosen = {
        "tolerations": [*place.extras.tolerations, *tolerations],
        "nodeSelector": {**place.extras.node_selector, **selector},
    }
    return {**place.extras.pod, **pod, **{key: value for key, value in chosen.items() if value}}


def _pod(part: str, name: str, place: Place, image: str, resources: Manifest, more: Mapping[str, str]) -> Manifest:
    environment = {
        **place.environment,
        "HOME": place.home,
        variables.ENGINE.name: name,
        variables.NAMESPACE.name: place.namespace,
        **more,
    }
    container = {
        "name": part,
        "image": image,
        # args, not command: the image's entrypoint is an init that forwards signals.
        "args": ["python", "-m", ENGINE_POD, part],
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "ports": [{"name": "health", "containerPort": API_PORT}],
        "resources": resources,
        # Five minutes: a replacement waits for the end of its predecessor, which takes up to `GRACE_SECONDS`.
        "livenessProbe": {"httpGet": _HEALTH, "periodSeconds": 20, "timeoutSeconds": 10, "failureThreshold": 15},
        "securityContext": podspec.container_security(),
        "volumeMounts": [{"name": "home", "mountPath": place.home}],
    }
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": podspec.security(),
        "containers": [container],
        "volumes": [{"name": "home", "persistentVolumeClaim": {"claimName": place.claim}}],
    }


def _mebibytes(gib: float) -> str:
    return f"{1024 * gib:.0f}Mi"
