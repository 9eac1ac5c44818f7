"""Pods: the parts of a pod's manifest that notebooks, nodes and apps share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cnai.labels import GPU, GPU_PRODUCT
from cnai.records import Record

if TYPE_CHECKING:
    from cnai.catalog import Flavor

USER, USERS = 1000, 100
HOME = "/home/cnai"
"""The same path in notebooks and apps, so that paths below it are valid in both; an app's home is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras(Record):
    """The settings that an administrator adds to a person's notebook and to the pods of their runs.

    `pod` has further fields of the pod's spec; the nodes' volumes are not the scheduler's.
    """

    tolerations: tuple[object, ...] = ()
    node_selector: dict[str, str] = field(default_factory=dict)
    pod: dict[str, object] = field(default_factory=dict)
    volumes: tuple[object, ...] = ()
    volume_mounts: tuple[object, ...] = ()


def security() -> dict[str, Any]:
    """Return a pod's security context, as the restricted Pod Security Standard requires."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USERS,
        "fsGroup": USERS,
        # Otherwise kubelet walks every file of the home at each start.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """Return the security context of the pod's containers."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def without_gpus(flavor: Flavor | None = None) -> dict[str, str]:
    """Return the environment that hides GPUs from a pod whose flavor has no GPUs, or that has no flavor."""
    # The NVIDIA runtime obeys this variable even if the pod requests no GPU, and CUDA images set it to "all".
    return {} if flavor and flavor.gpus else {"NVIDIA_VISIBLE_DEVICES": "void"}


def gpu_limits(flavor: Flavor) -> dict[str, str]:
    """Return a pod's GPU limit; Kubernetes uses the limit as the request, too."""
    return {GPU: str(flavor.gpus)} if flavor.gpus else {}


def node_selector(flavor: Flavor) -> dict[str, str]:
    """Return the node selector for a flavor's GPU product."""
    return {GPU_PRODUCT: flavor.gpu_product} if flavor.gpu_product else {}


def tolerations(flavor: Flavor) -> list[dict[str, str]]:
    """Return the toleration for GPU nodes, which often have this taint to keep other pods away."""
    return [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}] if flavor.gpus else []


def shared_memory(size: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return volume and mount of the shared memory for torch.distributed and data loaders; it counts as pod memory."""
    volume = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}}
    return volume, {"name": "shm", "mountPath": "/dev/shm"}  # noqa: S108 - the pod's own
