"""How far an engine is, from what the API server says of its pods."""

import pytest

from backends.pods import NOW, complaint, dask_cluster, pod, when
from cnai.backends.kubernetes.standing import judge

UNSCHEDULABLE = [
    {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
    }
]
QUOTA = (
    'pods "e-default-worker-1-x" is forbidden: exceeded quota: tenant, requested: requests.nvidia.com/gpu=2, used:'
    " requests.nvidia.com/gpu=6, limited: requests.nvidia.com/gpu=6"
)


def _judge(pods=(), events=(), wanted=2, age=5.0):
    return judge(dask_cluster("e", age), wanted, pods, events, NOW)


def test_no_engine():
    assert not judge(None, None, [], [], NOW).exists
    going = dask_cluster("e")
    going["metadata"]["deletionTimestamp"] = going["metadata"]["creationTimestamp"]
    assert not judge(going, 1, [], [], NOW).exists


def test_on_its_way_to_complete():
    scheduler, first, second = pod("e", "scheduler"), pod("e", "worker"), pod("e", "worker")
    steps = [
        ([], "the engine's pods are being created"),
        ([pod("e", "scheduler", runs=False), pod("e", "worker", runs=False)], "the scheduler's pod is starting"),
        ([scheduler, pod("e", "worker", runs=False)], "0 of 2 nodes run"),
        ([scheduler, first], "1 of 2 nodes run"),
        ([scheduler, first, second], ""),
    ]
    for pods, said in steps:
        now = _judge(pods)
        assert (now.reason, now.reason.heals) == (said, True)
    assert (now.exists, now.scheduler, now.nodes, now.age_seconds) == (True, True, 2, 5.0)


def test_pods_that_are_going_do_not_count():
    leaving = pod("e", "worker")
    leaving["metadata"]["deletionTimestamp"] = leaving["metadata"]["creationTimestamp"]
    evicted = pod("e", "worker", runs=False)
    evicted["status"]["phase"] = "Failed"
    assert _judge([pod("e", "scheduler"), leaving, evicted]).nodes == 0


def test_before_the_operator_knows_how_many():
    assert _judge([pod("e", "scheduler")], wanted=None).reason == "0 of 1 nodes run"


def test_what_a_pod_lacks():
    node = pod("e", "worker", runs=False)
    node["status"]["conditions"] = UNSCHEDULABLE
    node["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "2"}}
    now = _judge([pod("e", "scheduler"), node])
    assert now.reason == "no node has 2 free GPUs"
    assert now.reason.heals


def test_what_does_not_heal_is_said_first():
    waiting, hopeless = pod("e", "worker", runs=False), pod("e", "worker", runs=False)
    waiting["status"]["conditions"] = UNSCHEDULABLE
    hopeless["status"]["containerStatuses"] = [
        {"image": "i", "state": {"waiting": {"reason": "ErrImagePull", "message": "i: not found"}}}
    ]
    now = _judge([waiting, hopeless])
    assert now.reason.startswith("the image can't be pulled")
    assert not now.reason.heals


@pytest.mark.parametrize(
    ("event", "counts"),
    [
        (complaint("ReplicaSet", "e-default-worker-1", QUOTA), True),
        (complaint("ReplicaSet", "e2-default-worker-1", QUOTA), False),
        (complaint("ReplicaSet", "e-default-worker-1", QUOTA, seconds_ago=100), False),
        (complaint("ReplicaSet", "e-default-worker-1", QUOTA, kind="Normal"), False),
        (complaint("Pod", "e-default-worker-1", QUOTA), False),
    ],
)
def test_pods_that_nobody_may_make(event, counts):
    now = _judge([pod("e", "scheduler")], [event])
    assert (now.reason.startswith("the quota allows 6 GPUs"), not now.reason.heals) == (counts, counts)


def test_an_old_complaint_that_goes_on_counts():
    event = {**complaint("ReplicaSet", "e-default", "exceeded it", seconds_ago=9), "lastTimestamp": None}
    assert not _judge([pod("e", "scheduler")], [event]).reason.startswith("Kubernetes refuses")
    event["series"] = {"lastObservedTime": when(1)[:-1] + ".000001Z"}
    assert _judge([pod("e", "scheduler")], [event]).reason == "Kubernetes refuses: exceeded it"


def test_a_complaint_is_over_when_the_pod_is_there():
    node = pod("e", "worker", runs=False)
    node["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "name": "e-default-worker-1"}]
    now = _judge([pod("e", "scheduler"), node], [complaint("ReplicaSet", "e-default-worker-1", QUOTA)])
    assert now.reason == "0 of 2 nodes run"


def test_nobody_acts():
    assert "being created" in _judge().reason
    for age, heals in ((20, True), (90, False)):
        now = _judge(age=age)
        assert "ask your administrator whether the Dask operator runs" in now.reason
        assert now.reason.heals is heals
