"""Labels, annotations, resources and objects by the names that Kubernetes knows them by, each once.

Pods of a hub, manifests of tenants and engines, and what looks for them must agree on these. The chart's values and
the images can't import them; a test compares.
"""

from __future__ import annotations

TENANT = "cnai.dev/tenant"
"""Label of a person's namespace."""
USER = "cnai.dev/user"
"""Annotation of the same: the person's name, whatever it consists of."""
ROLE = "cnai.dev/role"
"""Label that decides which network policies hold for a pod."""
APP, OPERATOR_ROLE = "app", "operator"
FLAVOR = "cnai.dev/flavor"
IMAGE = "cnai.dev/image"
"""Label of a server: the image's name in the catalog. Annotation of an engine: what its pods pull."""
MAX_HOURS = "cnai.dev/max-hours"
"""Annotation: after so many hours the hub stops the server."""

COMPONENT = "component"
"""Label by which the chart and KubeSpawner tell hub, proxy and servers apart."""
HUB_COMPONENT, PROXY_COMPONENT, SERVER_COMPONENT = "hub", "proxy", "singleuser-server"

GPU = "nvidia.com/gpu"
GPU_PRODUCT = "nvidia.com/gpu.product"

DASK_GROUP, DASK_VERSION = "kubernetes.dask.org", "v1"
DASK_CLUSTERS = "daskclusters"
DASK_CLUSTER = "dask.org/cluster-name"
DASK_WORKER_GROUP = "dask.org/workergroup-name"
DASK_COMPONENT = "dask.org/component"
SCHEDULER, WORKER = "scheduler", "worker"

NOTEBOOK = "notebook"
"""Service account of notebook servers."""
HUB = "cnai-hub"
HUB_IN_TENANT = "cnai-hub-tenant"
OPERATOR = "cnai-operator"
TENANT_ROLE = "cnai-tenant"
RELEASES = "cnai-releases"
"""Volume claim of the hub's pod that holds the releases of apps."""
HOME_CLAIM = "home"
"""Volume claim of a person's home."""
