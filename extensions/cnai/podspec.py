"""Pods: the parts of a manifest that notebooks, nodes and apps share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnai.labels import GPU, GPU_PRODUCT

if TYPE_CHECKING:
    from cnai.catalog import Flavor

USER, USERS = 1000, 100
HOME = "/home/cnai"
"""The same in notebooks and apps, so that paths below it mean the same; an app's is empty."""


def security() -> dict[str, Any]:
    """Return a pod's security context, as the restricted Pod Security Standard has it."""
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
    """Return the security context of its containers."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def without_gpus(flavor: Flavor | None = None) -> dict[str, str]:
    """Return what keeps GPUs from a pod whose flavor, if any, has none."""
    # The NVIDIA runtime obeys this variable even where no GPU was asked for, and CUDA images set it to "all".
    return {} if flavor and flavor.gpus else {"NVIDIA_VISIBLE_DEVICES": "void"}


def gpu_limits(flavor: Flavor) -> dict[str, str]:
    """Return the GPUs that a pod gets; Kubernetes takes the limit as the request, too."""
    return {GPU: str(flavor.gpus)} if flavor.gpus else {}


def node_selector(flavor: Flavor) -> dict[str, str]:
    """Return which nodes have a flavor's GPUs."""
    return {GPU_PRODUCT: flavor.gpu_product} if flavor.gpu_product else {}


def tolerations(flavor: Flavor) -> list[dict[str, str]]:
    """Return what lets a pod onto nodes with GPUs, which are often kept free of everything else by this taint."""
    return [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}] if flavor.gpus else []


def shared_memory(size: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return volume and mount of the memory that torch.distributed and data loaders share; it counts as the pod's."""
    volume = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}}
    return volume, {"name": "shm", "mountPath": "/dev/shm"}  # noqa: S108 - the pod's own
