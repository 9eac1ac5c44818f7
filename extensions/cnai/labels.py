"""Labels: names of Kubernetes labels, annotations, resources and objects, each declared once.

The hub's pods, the manifests of tenants and engines, and the code that looks for them must agree on these names. The
chart's values and the images can't import this module; a test compares them.
"""

from __future__ import annotations

TENANT = "cnai.dev/tenant"
"""Label of a person's namespace."""
USER = "cnai.dev/user"
"""Annotation of a person's namespace: the person's name, in any characters."""
ROLE = "cnai.dev/role"
"""Label that selects the network policies of a pod."""
APP, OPERATOR_ROLE = "app", "operator"
FLAVOR = "cnai.dev/flavor"
IMAGE = "cnai.dev/image"
"""Label of a server: the image's name in the catalog. Annotation of an engine: the reference that its pods pull."""
MAX_HOURS = "cnai.dev/max-hours"
"""Annotation: the number of hours after which the hub stops the server."""

COMPONENT = "component"
"""Label by which the chart and KubeSpawner distinguish hub, proxy and servers."""
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
