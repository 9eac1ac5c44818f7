"""The pod of a notebook server, compared whole as KubeSpawner makes it, and its environment."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cnai.catalog import Catalog, Flavor, Image
from cnai_hub.kubernetes import notebook_pods, progress, tenancy
from cnai_hub.kubernetes.settings import Home, Settings
from cnai_hub.profiles import Profile

REFERENCE = "registry.example/cnai/notebook@sha256:" + "0" * 64
TORCH = Image(name="torch", title="PyTorch", reference=REFERENCE)
SMALL = Flavor(name="small", title="Small", cpu=0.5, memory_gib=2)
H100 = Flavor(
    name="h100",
    title="Two H100",
    cpu=8,
    memory_gib=64,
    gpus=2,
    gpu_product="NVIDIA-H100-80GB-HBM3",
    max_hours=8,
    groups=("research",),
)
SHELF = Catalog((TORCH,), (SMALL, H100))
SETTINGS = Settings(catalog=SHELF, home=Home(storage_gib=50, storage_class="nfs"))


@pytest.mark.parametrize(
    ("flavor", "expected"),
    [
        (
            SMALL,
            {
                "cpu_limit": 0.5,
                "cpu_guarantee": 0.05,
                "mem_limit": 2 * 2**30,
                "mem_guarantee": 2**30,
                "extra_resource_limits": {},
                "node_selector": {},
                "tolerations": [],
                "extra_annotations": {},
            },
        ),
        (
            H100,
            {
                "cpu_limit": 8,
                "cpu_guarantee": 0.8,
                "mem_limit": 64 * 2**30,
                "mem_guarantee": 32 * 2**30,
                "extra_resource_limits": {"nvidia.com/gpu": "2"},
                "node_selector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "extra_annotations": {"cnai.dev/max-hours": "8"},
            },
        ),
    ],
)
def test_hardware(flavor, expected):
    assert notebook_pods.hardware(flavor, SETTINGS) == expected


def test_the_pod_of_a_notebook():
    traits = notebook_pods.notebook(Profile(TORCH, H100), SETTINGS)
    assert {key: value for key, value in traits.items() if key not in notebook_pods.hardware(H100, SETTINGS)} == {
        "image": REFERENCE,
        "cmd": ["python", "-m", "cnai_hub.kubernetes.notebook"],
        "args": [],
        "default_url": "/lab/tree/notebooks",
        "notebook_dir": "/home/cnai",
        "working_dir": "/home/cnai",
        "service_account": "notebook",
        "automount_service_account_token": True,
        "storage_pvc_ensure": True,
        "pvc_name_template": "home",
        "storage_capacity": "51200Mi",
        "storage_class": "nfs",
        "storage_access_modes": ["ReadWriteMany"],
        "volumes": [
            {"name": "home", "persistentVolumeClaim": {"claimName": "home"}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "32768Mi"}},
        ],
        "volume_mounts": [
            {"name": "home", "mountPath": "/home/cnai"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
        "init_containers": [],
        "extra_containers": [],
        "lifecycle_hooks": {},
        "extra_labels": {"cnai.dev/flavor": "h100", "cnai.dev/image": "torch"},
        "privileged": False,
        "allow_privilege_escalation": False,
        "pod_security_context": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 100,
            "fsGroup": 100,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "container_security_context": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "extra_pod_config": {"enableServiceLinks": False},
        "extra_container_config": {"terminationMessagePolicy": "FallbackToLogsOnError"},
    }


def test_what_a_notebook_finds_in_its_environment():
    mine = SHELF.for_groups(())
    assert notebook_pods.environment(Profile(TORCH, SMALL), mine, "cnai-ada") == {
        "HOME": "/home/cnai",
        "CNAI_BACKEND": "kubernetes",
        "CNAI_NAMESPACE": "cnai-ada",
        "CNAI_CATALOG": mine.to_json(),
        "CNAI_IMAGE": "torch",
        "CNAI_IMAGE_REFERENCE": REFERENCE,
        "CNAI_FLAVOR": "small",
        "CNAI_HOME_CLAIM": "home",
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.parametrize(
    ("hours", "started", "overdue"),
    [
        ("8", "2026-01-01T00:00:00Z", True),
        ("9", "2026-01-01T00:00:00Z", False),
        (None, "2026-01-01T00:00:00Z", False),
        ("0.5", None, False),
    ],
)
def test_a_server_has_the_hours_of_its_flavor(hours, started, overdue):
    pod = {"metadata": {"annotations": {"cnai.dev/max-hours": hours} if hours else None}, "status": {}}
    if started:
        pod["status"]["startTime"] = started
    assert notebook_pods.is_overdue(pod, datetime(2026, 1, 1, 8, 30, tzinfo=UTC)) == overdue


def event(reason, message=""):
    return {"involvedObject": {"name": "p"}, "reason": reason, "message": message}


def starting(phase="Pending", node="n", **status):
    spec = {"containers": [], **({"nodeName": node} if node else {})}
    return {"metadata": {"name": "p"}, "spec": spec, "status": {"phase": phase, **status}}


UNPLACED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "1 Too many pods."}


@pytest.mark.parametrize(
    ("pod", "events", "stage"),
    [
        (None, [], (10, "Preparing your namespace")),
        (starting(node=""), [], (20, "Looking for a node with enough free resources")),
        (starting(node="", conditions=[UNPLACED]), [], (20, "No node has room for another pod")),
        (starting(), [event("Scheduled")], (40, "The node is pulling the image and mounting the home folder")),
        (starting(), [event("Pulling", 'Pulling image "r/x:1"')], (40, "Still pulling the image r/x:1")),
        (starting(), [event("Pulled")], (60, "The image has been pulled; creating the container")),
        (starting(), [event("Pulled"), event("Started")], (80, "The server is starting")),
        (starting("Running"), [], (80, "The server is starting")),
    ],
)
def test_a_start_in_plain_words(pod, events, stage):
    assert progress.stage(pod, events) == progress.Stage(*stage)


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        ({"spec": {"storageClassName": "nfs"}, "status": {"phase": "Pending"}}, ""),
        ({"spec": {}, "status": {"phase": "Bound"}}, ""),
        ({"spec": {"volumeName": "mine"}, "status": {"phase": "Pending"}}, ""),
        (
            {"spec": {}, "status": {"phase": "Pending"}},
            "the cluster has no default storage class for home folders;"
            " ask your administrator to set custom.cnai.home.storage_class",
        ),
        (None, "the home folder's claim no longer exists; start the server again"),
    ],
)
def test_why_a_home_has_no_volume(claim, why):
    assert tenancy.why_without_volume(claim) == why
