"""An engine's DaskCluster, compared whole."""

import pytest

from cnai.backends.kubernetes import manifests
from cnai.backends.kubernetes.manifests import Place
from cnai.catalog import Flavor

PLACE = Place(
    namespace="cnai-ada",
    claim="home",
    home="/home/cnai",
    environment={"CNAI_HOME": "/home/cnai/cnai"},
)
IMAGE = "registry.example/cnai/notebook@sha256:" + "0" * 64
CPU = Flavor(name="small", title="Small", cpu=2, memory_gib=4)
GPU = Flavor(
    name="gpu-h100", title="H100", cpu=16, memory_gib=96, gpus=4, gpu_product="NVIDIA-H100-80GB-HBM3", price_per_hour=8
)
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 100,
    "fsGroup": 100,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
HEALTH = {"path": "/health", "port": "health"}
ENVIRONMENT = [
    {"name": "CNAI_HOME", "value": "/home/cnai/cnai"},
    {"name": "HOME", "value": "/home/cnai"},
    {"name": "CNAI_ENGINE", "value": "gpu-h100-1a2b"},
    {"name": "CNAI_NAMESPACE", "value": "cnai-ada"},
]


def _pod(part, resources):
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": POD_SECURITY,
        "containers": [
            {
                "name": part,
                "image": IMAGE,
                "args": ["python", "-m", "cnai.backends.kubernetes.pod", part],
                "env": ENVIRONMENT,
                "ports": [{"name": "health", "containerPort": 8787}],
                "resources": resources,
                "livenessProbe": {
                    "httpGet": HEALTH,
                    "periodSeconds": 20,
                    "timeoutSeconds": 10,
                    "failureThreshold": 15,
                },
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "home", "mountPath": "/home/cnai"}],
            }
        ],
        "volumes": [{"name": "home", "persistentVolumeClaim": {"claimName": "home"}}],
    }


def test_an_engine_with_gpus():
    node = _pod(
        "node",
        {
            "requests": {"cpu": "1600m", "memory": "98304Mi"},
            "limits": {"cpu": "16000m", "memory": "98304Mi", "nvidia.com/gpu": "4"},
        },
    )
    node["volumes"].append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "49152Mi"}})
    node["containers"][0]["volumeMounts"].append({"name": "shm", "mountPath": "/dev/shm"})
    node["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    node["nodeSelector"] = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    scheduler = _pod(
        "scheduler", {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    )
    scheduler["containers"][0]["readinessProbe"] = {"httpGet": HEALTH, "periodSeconds": 1, "timeoutSeconds": 5}
    scheduler["containers"][0]["env"] = [*ENVIRONMENT, {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]
    assert manifests.engine("gpu-h100-1a2b", PLACE, GPU, IMAGE, 2) == {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {
            "name": "gpu-h100-1a2b",
            "namespace": "cnai-ada",
            "labels": {"cnai.dev/flavor": "gpu-h100"},
            "annotations": {"cnai.dev/image": IMAGE},
        },
        "spec": {
            "idleTimeout": 60,
            "scheduler": {
                "spec": scheduler,
                "service": {
                    "type": "ClusterIP",
                    "selector": {"dask.org/cluster-name": "gpu-h100-1a2b", "dask.org/component": "scheduler"},
                    "ports": [{"name": "tcp-comm", "port": 8786}, {"name": "http-dashboard", "port": 8787}],
                },
            },
            "worker": {"replicas": 2, "spec": node},
        },
    }


def test_a_node_without_gpus_sees_none():
    node = manifests.engine("small-1a2b", PLACE, CPU, IMAGE, 1)["spec"]["worker"]["spec"]
    (container,) = node["containers"]
    assert container["env"][-1] == {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}
    assert container["resources"] == {
        "requests": {"cpu": "200m", "memory": "4096Mi"},
        "limits": {"cpu": "2000m", "memory": "4096Mi"},
    }
    assert "nodeSelector" not in node
    assert "tolerations" not in node


def test_the_smallest_flavor_is_sure_of_some_time():
    tiny = Flavor(name="tiny", title="Tiny", cpu=0.1, memory_gib=0.5)
    node = manifests.engine("tiny-1a2b", PLACE, tiny, IMAGE, 1)["spec"]["worker"]["spec"]
    assert node["containers"][0]["resources"]["requests"] == {"cpu": "50m", "memory": "512Mi"}


def test_where_an_engine_answers():
    assert manifests.address("small-1a2b", "cnai-ada") == "tls://small-1a2b-scheduler.cnai-ada:8786"
    assert manifests.node_group("small-1a2b") == "small-1a2b-default"


@pytest.mark.parametrize("part", ["scheduler", "worker"])
def test_it_changes_nothing_that_it_is_given(part):
    manifests.engine("a-1", PLACE, GPU, IMAGE, 1)["spec"][part]["spec"]["containers"][0]["resources"]["limits"].clear()
    again = manifests.engine("a-1", PLACE, GPU, IMAGE, 1)
    assert again["spec"][part]["spec"]["containers"][0]["resources"]["limits"]
