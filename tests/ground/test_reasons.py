"""What Kubernetes says, in plain words; the messages are those of a real API server, kubelet and containerd."""

from __future__ import annotations

import json

import pytest

from cnai import quantities, reasons

IMAGE = "registry.cnai.test/cnai/gone:1"
NOT_FOUND = (
    f'rpc error: code = NotFound desc = failed to pull and unpack image "{IMAGE}": failed to resolve reference'
    f' "{IMAGE}": {IMAGE}: not found'
)
NO_HOST = (
    'failed to pull and unpack image "registry.nowhere.test/x:1": failed to do request: Head'
    ' "https://registry.nowhere.test/v2/x/manifests/1": dial tcp: lookup registry.nowhere.test on 10.96.0.10:53:'
    " no such host"
)
NO_PREEMPTION = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."


def pod(*, status=None, limits=None, selector=None, policy="Always", requests=None):
    resources = {"limits": limits or {}, "requests": requests or {}}
    spec = {"containers": [{"name": "main", "resources": resources}], "restartPolicy": policy}
    if selector:
        spec["nodeSelector"] = selector
    return {"metadata": {"name": "p", "uid": "1"}, "spec": spec, "status": status or {}}


def event(reason, message, at="2026-01-01T00:00:00Z", uid="1"):
    return {
        "involvedObject": {"name": "p", "uid": uid},
        "reason": reason,
        "message": message,
        "lastTimestamp": at,
    }


def waiting(reason, message="", image=IMAGE):
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"image": image, "state": state}]}


def ended(restarts=0, **terminated):
    return {"containerStatuses": [{"state": {"terminated": terminated}, "restartCount": restarts}]}


def unschedulable(message, reason="Unschedulable"):
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    return {"phase": "Pending", "conditions": [condition]}


def insufficient(what):
    return unschedulable(f"0/1 nodes are available: 1 Insufficient {what}. {NO_PREEMPTION}")


H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
CASES = [
    (pod(), [], "", True),
    (pod(status={"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}), [], "", True),
    (
        pod(status=waiting("ErrImagePull", NOT_FOUND)),
        [],
        f"the image can't be pulled: {IMAGE} doesn't exist in its registry",
        False,
    ),
    (
        pod(status=waiting("ImagePullBackOff", f'Back-off pulling image "{IMAGE}"')),
        [event("Failed", f'Failed to pull image "{IMAGE}": {NOT_FOUND}')],
        f"the image can't be pulled: {IMAGE} doesn't exist in its registry",
        False,
    ),
    (
        pod(status=waiting("InvalidImageName", "couldn't parse image name", "r/UPPER:1")),
        [],
        "the image can't be pulled: r/UPPER:1 doesn't exist in its registry",
        False,
    ),
    (
        pod(status=waiting("ErrImagePull", "unexpected status code 401 Unauthorized")),
        [],
        f"the image can't be pulled: the registry denies access to {IMAGE}",
        False,
    ),
    (
        pod(status=waiting("ErrImagePull", NO_HOST, "registry.nowhere.test/x:1")),
        [],
        "the image can't be pulled yet: registry.nowhere.test/x:1: no such host; Kubernetes tries again",
        True,
    ),
    (
        pod(status=insufficient("nvidia.com/gpu"), limits={"nvidia.com/gpu": "4"}, selector=H100),
        [],
        "no node has 4 free H100 GPUs",
        True,
    ),
    (
        pod(status=insufficient("nvidia.com/gpu"), limits={"nvidia.com/gpu": "1"}),
        [],
        "no node has 1 free GPU",
        True,
    ),
    (pod(status=insufficient("memory"), limits={"memory": "64Gi"}), [], "no node has 64 GiB of memory free", True),
    (
        pod(status=insufficient("cpu"), limits={"cpu": "4"}, requests={"cpu": "500m"}),
        [],
        "no node has 0.5 CPUs free",
        True,
    ),
    (
        pod(
            status=unschedulable("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."),
            selector=H100,
        ),
        [],
        "no node has H100 GPUs",
        True,
    ),
    (
        pod(status=unschedulable('0/1 nodes are available: persistentvolumeclaim "home" not found.')),
        [],
        "the volume claim 'home' doesn't exist",
        True,
    ),
    (
        pod(status=unschedulable("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.")),
        [],
        "the pod waits for its volume, which doesn't exist yet",
        True,
    ),
    (
        pod(status=unschedulable("Scheduling is blocked", "SchedulingGated")),
        [],
        "the pod waits for its turn in the queue",
        True,
    ),
    (
        pod(status=unschedulable("0/1 nodes are available: 1 node(s) had untolerated taint {a: b}.")),
        [],
        "every free node is reserved for other workloads",
        True,
    ),
    (
        pod(status=ended(reason="OOMKilled", exitCode=137), limits={"memory": "2Gi"}, policy="Never"),
        [],
        "the pod needed more memory than its flavor has (2 GiB of memory) and was killed",
        False,
    ),
    (pod(status=ended(exitCode=3)), [], "the pod's program ended (exit code 3)", True),
    (pod(status=ended(exitCode=3, restarts=3)), [], "the pod's program ended (exit code 3, 4 times)", False),
    (pod(status=ended(exitCode=0)), [], "", True),
    (
        pod(status={"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory. "}),
        [],
        "the pod failed (Evicted): The node was low on resource: memory",
        False,
    ),
    (
        pod(status={"phase": "Pending"}),
        [
            event("Pulling", f'Pulling image "{IMAGE}"', "2026-01-01T00:00:02Z"),
            event("Scheduled", "Successfully assigned", "2026-01-01T00:00:01Z"),
        ],
        f"still pulling the image {IMAGE}",
        True,
    ),
    (
        pod(status={"phase": "Pending"}),
        [event("Pulling", "x", "2026-01-01T00:00:01Z"), event("Pulled", "x", "2026-01-01T00:00:02Z")],
        "",
        True,
    ),
    (
        pod(status={"phase": "Pending"}),
        [event("FailedMount", 'MountVolume.SetUp failed for volume "home"')],
        'a volume can\'t be mounted yet: MountVolume.SetUp failed for volume "home"; Kubernetes tries again',
        True,
    ),
    (pod(status={"phase": "Pending"}), [event("FailedMount", "of a pod before", uid="0")], "", True),
]


@pytest.mark.parametrize(("given", "events", "sentence", "heals"), CASES)
def test_why_a_pod_does_not_run(given, events, sentence, heals):
    reason = reasons.of_pod(given, events)
    assert (str(reason), reason.heals) == (sentence, heals)


QUOTA = (
    'pods "q" is forbidden: exceeded quota: tenant, requested: limits.memory=8Gi,requests.nvidia.com/gpu=4, used:'
    " limits.memory=0,requests.nvidia.com/gpu=6, limited: limits.memory=4Gi,requests.nvidia.com/gpu=8"
)
QUOTA_SENTENCE = (
    "the quota allows 4 GiB of memory; 0 GiB of memory in use, 8 GiB of memory more requested;"
    " the quota allows 8 GPUs; 6 GPUs in use, 4 GPUs more requested; stop something else, or request less"
)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (QUOTA, QUOTA_SENTENCE),
        (json.dumps({"kind": "Status", "message": QUOTA, "code": 403}), QUOTA_SENTENCE),
        (
            'daskclusters.kubernetes.dask.org "cpu-1" is forbidden: status unknown for quota: tenant, resources:'
            " count/daskclusters.kubernetes.dask.org",
            "the quota doesn't count these objects yet; try again in five minutes",
        ),
        (
            "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'cnai-pods' with binding 'cnai-pods' denied request:"
            " cnai: images come from registry.example/cnai/",
            "the cluster's rules don't allow it: images come from registry.example/cnai/",
        ),
        (
            'pods "x" is forbidden: violates PodSecurity "restricted:latest": privileged (container "m" must not set'
            " securityContext.privileged=true)",
            'the cluster doesn\'t allow such a pod: privileged (container "m" must not set'
            " securityContext.privileged=true)",
        ),
        (
            'daskclusters.kubernetes.dask.org is forbidden: User "system:serviceaccount:cnai-ada:notebook" cannot'
            ' create resource "daskclusters" in API group "kubernetes.dask.org" in the namespace "cnai-ada"',
            "the account cnai-ada/notebook may not create daskclusters in namespace 'cnai-ada';"
            " ask your administrator to apply `python -m cnai_hub.tenants` again",
        ),
        (
            "Unauthorized",
            "the API server rejects the account's token (expired?); stop the server and start it again",
        ),
        (
            "the server could not find the requested resource",
            "this cluster doesn't know these objects; ask your administrator to apply `python -m cnai_hub.tenants`",
        ),
        (
            'pods "x" is forbidden: unable to create new content in namespace cnai-ada because it is being terminated',
            "the namespace is being deleted; try again in a minute",
        ),
        ("something else.\nentirely", "Kubernetes refuses: something else. entirely"),
        ("", "Kubernetes refuses without a reason"),
    ],
)
def test_why_the_api_server_refuses(message, sentence):
    reason = reasons.of_refusal(message)
    assert str(reason) == sentence
    assert not reason.heals


@pytest.mark.parametrize(
    ("resource", "value", "said"),
    [
        ("requests.nvidia.com/gpu", "1", "1 GPU"),
        ("limits.memory", "1536Mi", "1.5 GiB of memory"),
        ("requests.cpu", "250m", "0.25 CPUs"),
        ("pods", "64", "64 pods"),
        ("count/daskclusters.kubernetes.dask.org", "3", "3 Dask clusters"),
        ("persistentvolumeclaims", 1, "1 claim"),
    ],
)
def test_amounts_as_people_say_them(resource, value, said):
    assert quantities.amount(resource, value) == said


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("NVIDIA-H100-80GB-HBM3", "H100"),
        ("NVIDIA-A100-SXM4-40GB", "A100"),
        ("Tesla-T4", "T4"),
        ("NVIDIA-GeForce-RTX-4090", "GeForce RTX 4090"),
        ("MI300X", "MI300X"),
        ("", ""),
    ],
)
def test_gpus_as_people_call_them(label, said):
    assert quantities.product(label) == said


def test_what_is_no_quantity_is_refused():
    with pytest.raises(ValueError, match="not a quantity: '2 apples'"):
        quantities.quantity("2 apples")


def test_an_event_that_says_only_when_it_was_written_is_as_new_as_that():
    older = event("Pulling", "pulling", "2026-01-01T00:00:00Z")
    newer = {**event("FailedMount", "no such claim"), "lastTimestamp": None}
    newer["metadata"] = {"creationTimestamp": "2026-01-01T00:00:01Z"}
    for both in ([older, newer], [newer, older]):
        assert "a volume can't be mounted yet" in reasons.of_pod(pod(status={"phase": "Pending"}), both)
