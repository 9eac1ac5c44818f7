"""A cluster for the tests, and a namespace for each that needs one."""

from __future__ import annotations

import secrets
from contextlib import suppress

import builtimages
import pytest
import realcluster
import tenancy

# Files run in parallel (`-n`), roughly the longest first. One of the first needs no image of ours, which are built
# meanwhile.
FIRST = [
    *("test_training.py", "test_hub_deaths.py", "test_attacks.py", "test_journey_on_a_cluster.py", "test_spawn.py"),
    *("test_engine_pods.py", "test_hubpod.py", "test_apps_in_pods.py", "test_images.py", "test_doctor_in_a_pod.py"),
    "test_cluster.py",
]
ALONE = "test_outages.py"
"""This file prepares while the others run, and uses the API server alone after all of them have ended."""
APART = ["test_image_builds.py", "test_onenode.py"]
"""These files don't need the API server once their images are built: they use the processors while it is stopped."""


def pytest_collection_modifyitems(items):
    """Sort the files."""
    order = {name: place for place, name in enumerate([*FIRST, "", ALONE, *APART])}
    items.sort(key=lambda item: order.get(item.path.name, order[""]))


def pytest_sessionfinish(session):
    """Remove the objects that all workers shared, after the last worker has ended."""
    if hasattr(session.config, "workerinput") or isinstance(found := realcluster.connect(), str):
        return
    with suppress(realcluster.Refused):  # a cluster that doesn't answer has failed its tests already
        tenancy.leave(found)


@pytest.fixture(scope="module", autouse=True)
def _side_by_side(request):
    """Wait until the API server, or most of the processors, may be used."""
    if request.path.name == ALONE:  # waits by itself
        yield
    elif request.path.name in APART:
        with realcluster.alone("processors"):
            yield
    else:
        with realcluster.alone("processors", others=True), realcluster.alone("cluster", others=True):
            yield


@pytest.fixture(scope="session")
def cluster(starts_processes):
    """KUBECONFIG's cluster; tests skip without one and say why."""
    found = realcluster.connect()
    if isinstance(found, str):
        pytest.skip(found)
    found.kubectl("version")
    yield found
    with realcluster.alone("cluster", others=True):
        tenancy.wait_until_gone(found)


@pytest.fixture(scope="session")
def images(cluster, tmp_path_factory):
    """cnai's images of the current code: `images["notebook"]` is the reference for a pod, with its digest."""
    if reason := builtimages.unavailable(cluster):
        pytest.skip(reason)
    return builtimages.Images(cluster, tmp_path_factory.mktemp("sources"))


@pytest.fixture
def own_cluster(cluster):
    """The cluster that `make cluster` starts, for tests of features that other clusters may not have."""
    if cluster.place is None:
        pytest.skip("KUBECONFIG names a cluster that `make cluster` did not start")
    return cluster


@pytest.fixture
def namespace(cluster):
    """A namespace with the restricted standard, deleted afterwards with its contents."""
    name = f"cnai-test-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def gpu_count(cluster):
    """How many GPUs the largest node has."""
    nodes = cluster.get("nodes")["items"]
    count = max(int(node["status"]["allocatable"].get("nvidia.com/gpu", 0)) for node in nodes)
    if count == 0:
        pytest.skip("no node of the cluster has a nvidia.com/gpu")
    return count
