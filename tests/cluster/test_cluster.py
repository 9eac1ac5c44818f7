"""The cluster is a real one: it runs pods, resolves names, pulls images, enforces quotas and refuses pods."""

from __future__ import annotations

import copy
import secrets

import pytest
from onenode import life
from realcluster import Refused, gpus, pod

SLEEP = ["sleep", "1000"]
DOCKERFILE = """\
ARG BASE=debian:bookworm-slim
FROM ${BASE}
ARG BASE
RUN echo %s > /token
USER 1000:1000
CMD ["cat", "/token"]
"""


def test_a_node_is_ready(cluster):
    conditions = [c for node in cluster.get("nodes")["items"] for c in node["status"]["conditions"]]
    assert "True" in [condition["status"] for condition in conditions if condition["type"] == "Ready"]


def test_dns_answers_in_a_pod(cluster, namespace):
    cluster.create(pod("asks", cluster.base, SLEEP), namespace)
    cluster.wait("pod/asks", "condition=Ready", namespace)
    address = cluster.get("service", "kubernetes", "-n", "default")["spec"]["clusterIP"]
    asks = ("exec", "-n", namespace, "asks", "--", "getent", "hosts")
    assert cluster.kubectl(*asks, "kubernetes.default").split() == [address, "kubernetes.default.svc.cluster.local"]
    with pytest.raises(Refused, match="exit code 2"):
        cluster.kubectl(*asks, "nobody.default")


def test_an_image_is_built_pushed_and_pulled(cluster, namespace, tmp_path):
    token = secrets.token_hex(8)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE % token)
    image = cluster.publish(tmp_path, "cnai/token:test")
    if image is None:
        pytest.skip("no registry: CNAI_CLUSTER_REGISTRY names none that the cluster pulls from")
    manifest = pod("shows", image, ["cat", "/token"], imagePullPolicy="Always")
    cluster.create(manifest, namespace)
    cluster.wait("pod/shows", "jsonpath={.status.phase}=Succeeded", namespace)
    assert cluster.kubectl("logs", "-n", namespace, "shows").strip() == token
    events = cluster.get("events", "-n", namespace)["items"]
    assert "Successfully pulled image" in " ".join(event["message"] for event in events if event["reason"] == "Pulled")


def test_a_pod_gets_gpus(cluster, namespace, gpu_count):
    """Other tests may use GPUs at the same time, so request more than any node has."""
    cluster.create(pod("fits", cluster.base, SLEEP, resources=gpus(1)), namespace)
    cluster.wait("pod/fits", "condition=Ready", namespace)
    cluster.create(pod("waits", cluster.base, SLEEP, resources=gpus(gpu_count)), namespace)
    cluster.create(pod("never", cluster.base, SLEEP, resources=gpus(gpu_count + 1)), namespace)
    for name in ("waits", "never") if len(cluster.get("nodes")["items"]) == 1 else ("never",):
        cluster.wait(f"pod/{name}", "condition=PodScheduled=false", namespace)
        condition = cluster.get("pod", name, "-n", namespace)["status"]["conditions"][0]
        assert "Insufficient nvidia.com/gpu" in condition["message"]


def test_the_simulated_gpus_are_as_many_as_asked_for(own_cluster, gpu_count):
    assert gpu_count == own_cluster.place.gpus


def test_quota_refuses_what_is_too_much(cluster, namespace, gpu_count):
    cluster.create(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "few"},
            "spec": {"hard": {"requests.nvidia.com/gpu": "1"}},
        },
        namespace,
    )
    cluster.wait("resourcequota/few", "jsonpath={.status.hard}", namespace)
    with pytest.raises(Refused, match=r"exceeded quota: few, requested: requests.nvidia.com/gpu=2"):
        cluster.create(pod("two", cluster.base, SLEEP, resources=gpus(2)), namespace)
    cluster.create(pod("one", cluster.base, SLEEP, resources=gpus(1)), namespace)
    with pytest.raises(Refused, match="exceeded quota"):
        cluster.create(pod("another", cluster.base, SLEEP, resources=gpus(1)), namespace)


def test_the_restricted_standard_refuses_a_privileged_pod(cluster, namespace):
    privileged = pod("privileged", cluster.base, SLEEP, securityContext={"privileged": True})
    with pytest.raises(Refused, match='violates PodSecurity "restricted:latest": privileged'):
        cluster.create(privileged, namespace)
    path = copy.deepcopy(privileged)
    path["spec"]["containers"][0]["securityContext"] = pod("x", "x", [])["spec"]["containers"][0]["securityContext"]
    path["spec"]["volumes"] = [{"name": "root", "hostPath": {"path": "/"}}]
    with pytest.raises(Refused, match='volume "root" uses restricted volume type "hostPath"'):
        cluster.create(path, namespace)
    # Control: the same pods without the refused field are accepted.
    del path["spec"]["volumes"]
    cluster.create(path, namespace)
    cluster.wait("pod/privileged", "condition=Ready", namespace)
    cluster.create(privileged, "kube-system", "--dry-run=server")


def test_pods_share_a_volume(own_cluster, namespace):
    own_cluster.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "shared"},
            "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
        },
        namespace,
    )
    mount = [{"name": "shared", "mountPath": "/shared"}]
    for name, command in {"writes": "echo hello > /shared/word", "reads": "cat /shared/word"}.items():
        manifest = pod(name, own_cluster.base, ["sh", "-c", command], volumeMounts=mount)
        manifest["spec"]["volumes"] = [{"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}}]
        manifest["spec"]["securityContext"] = {"fsGroup": 100}
        own_cluster.create(manifest, namespace)
        own_cluster.wait(f"pod/{name}", "jsonpath={.status.phase}=Succeeded", namespace)
    assert own_cluster.kubectl("logs", "-n", namespace, "reads") == "hello\n"
    volume = own_cluster.get("pvc", "shared", "-n", namespace)["spec"]["volumeName"]
    folder = own_cluster.place.state / "volumes" / volume
    assert (folder / "word").read_text() == "hello\n"
    own_cluster.kubectl("delete", "pod", "writes", "reads", "-n", namespace)
    own_cluster.kubectl("delete", "pvc", "shared", "-n", namespace)
    own_cluster.wait(f"pv/{volume}", "delete", namespace)
    assert not folder.exists()


def test_pods_have_no_way_out(own_cluster, namespace):
    own_cluster.create(pod("knocks", own_cluster.base, SLEEP), namespace)
    own_cluster.wait("pod/knocks", "condition=Ready", namespace)
    knock = ("exec", "-n", namespace, "knocks", "--", "bash", "-c")
    with pytest.raises(Refused, match="Connection refused"):
        own_cluster.kubectl(*knock, "echo > /dev/tcp/192.0.2.1/80")  # an address for documentation, which nobody uses
    own_cluster.kubectl(*knock, "echo > /dev/tcp/10.96.0.1/443")


def test_coming_up_again_changes_nothing(own_cluster):
    before = life.status(own_cluster.place)
    assert all(before.values())
    life.up(own_cluster.place)
    assert life.status(own_cluster.place) == before
