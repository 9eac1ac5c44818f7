"""Free resources of nodes, and the messages about them."""

from __future__ import annotations

import pytest

from cnai.catalog import Catalog, Flavor, Image
from cnai_hub.kubernetes import capacity
from cnai_hub.kubernetes.capacity import Node
from cnai_hub.kubernetes.settings import Settings

PRODUCT = "NVIDIA-H100-80GB-HBM3"
GIB = 2**30
CPU = Flavor(name="cpu", title="CPU", cpu=4, memory_gib=8)
ONE = Flavor(name="h100", title="One H100", cpu=4, memory_gib=8, gpus=1, gpu_product=PRODUCT)
TWO = Flavor(name="h100x2", title="Two H100", cpu=8, memory_gib=16, gpus=2, gpu_product=PRODUCT)
FOUR = Flavor(name="h100x4", title="Four H100", cpu=8, memory_gib=32, gpus=4, gpu_product=PRODUCT)
T4 = Flavor(name="t4", title="T4", cpu=4, memory_gib=8, gpus=1, gpu_product="Tesla-T4")
ANY = Flavor(name="any", title="Any GPU", cpu=4, memory_gib=8, gpus=4)
SHELF = Catalog((Image(name="torch", title=""),), (CPU, ONE, TWO, FOUR, T4))
SETTINGS = Settings(catalog=SHELF, cpu_share=0.1, memory_share=0.5)


def node(name="n", *, gpus=8, ready=True, taints=(), cordoned=False, product=PRODUCT):
    allocatable = {"cpu": "3900m", "memory": "64Gi", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    return {
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": product} if gpus else {}},
        "spec": {"unschedulable": cordoned, "taints": list(taints)},
        "status": {
            "allocatable": allocatable,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def pod(on="n", phase="Running", *, limits=None, requests=None, first=None):
    containers = [{"resources": {"limits": limits or {}, "requests": requests or {}}}]
    spec = {"nodeName": on, "containers": containers}
    if first:
        spec["initContainers"] = [{"resources": {"requests": first}}]
    return {"spec": spec, "status": {"phase": phase}}


def test_pods_take_what_they_ask_for_until_they_end():
    pods = [
        pod(limits={"nvidia.com/gpu": "2", "memory": "8Gi"}, requests={"cpu": "400m", "memory": "4Gi"}),
        pod(requests={"cpu": "500m"}, first={"cpu": "1", "memory": "1Gi"}),
        pod(phase="Succeeded", limits={"nvidia.com/gpu": "4"}),
        pod(on="", limits={"nvidia.com/gpu": "4"}),  # waits for a node
        pod(on="other", limits={"nvidia.com/gpu": "1"}),
    ]
    assert capacity.free([node()], pods) == (Node("n", PRODUCT, 8, 6, 2.5, 59 * GIB),)


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({}, True),
        ({"ready": False}, False),
        ({"cordoned": True}, False),
        ({"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]}, True),
        ({"taints": [{"key": "mine", "effect": "NoSchedule"}]}, False),
        ({"taints": [{"key": "mine", "effect": "PreferNoSchedule"}]}, True),
    ],
)
def test_only_nodes_that_take_our_pods_count(change, counts):
    assert bool(capacity.free([node(**change)], [])) == counts


def free(*gpus, product=PRODUCT):
    return tuple(Node(f"n{number}", product, 8, count, 4, 64 * GIB) for number, count in enumerate(gpus))


@pytest.mark.parametrize(
    ("flavor", "nodes", "note", "shortage"),
    [
        (CPU, free(8), "", ""),
        (FOUR, free(8), "8 of 8 GPUs free now", ""),
        (FOUR, free(2), "2 of 8 GPUs free now", "no node has 4 free H100 GPUs; 2 are free"),
        (FOUR, free(1, 0), "1 of 16 GPUs free now", "no node has 4 free H100 GPUs; 1 is free"),
        (
            FOUR,
            free(3, 2),
            "5 of 16 GPUs free now",
            "no node has 4 free H100 GPUs; 5 are free, at most 3 of them on one node",
        ),
        (ONE, free(0), "0 of 8 GPUs free now", "no node has 1 free H100 GPU; none is free"),
        (T4, free(8), "no node has such GPUs now", "no node has T4 GPUs"),
        (ANY, free(2), "2 of 8 GPUs free now", "no node has 4 free GPUs; 2 are free"),
        (ANY, (), "no node has such GPUs now", "no node has a GPU"),
    ],
)
def test_what_people_read(flavor, nodes, note, shortage):
    assert capacity.note(flavor, nodes) == note
    assert capacity.shortage(flavor, nodes) == shortage


@pytest.mark.parametrize(
    ("flavor", "nodes", "found"),
    [
        (FOUR, free(2), TWO),
        (FOUR, free(1), ONE),
        (FOUR, free(0), CPU),  # there are no T4s
        (FOUR, (), None),
        (CPU, free(8), None),  # nothing is smaller
        (TWO, free(1, 1), ONE),
        (FOUR, (*free(0), *free(4, product="Tesla-T4")), T4),
    ],
)
def test_the_largest_flavor_that_fits(flavor, nodes, found):
    assert capacity.largest(SHELF, flavor, nodes, SETTINGS) == found
