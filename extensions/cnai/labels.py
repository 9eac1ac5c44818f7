"""Labels, annotations and resources of Kubernetes by which cnai's parts know each other's objects."""

from __future__ import annotations

FLAVOR = "cnai.dev/flavor"
IMAGE = "cnai.dev/image"
MAX_HOURS = "cnai.dev/max-hours"
"""Annotation: after so many hours the hub stops the server."""
TENANT = "cnai.dev/tenant"
USER = "cnai.dev/user"
ROLE = "cnai.dev/role"
"""A pod's purpose; network policies select by it."""

CLUSTER = "dask.org/cluster-name"
COMPONENT = "dask.org/component"
WORKER_GROUP = "dask.org/workergroup-name"

GPU = "nvidia.com/gpu"
GPU_PRODUCT = "nvidia.com/gpu.product"
