"""An engine in pods: it trains, loses pods, is evicted, and is deleted when idle; the operator is a pod, too."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tenancy
import workplace
from tenancy import until

from cnai.backends.kubernetes import manifests
from cnai.catalog import Flavor
from cnai.events import Event, Kind, State
from cnai_hub.tenants import operator as operators

NAME = "gpu-a1b2"
FLAVOR = Flavor(name="gpu", title="", cpu=1, memory_gib=1.5, gpus=1)
TRAINING = Path(__file__).parents[1] / "run" / "training.py"
IDLE_SECONDS = 40
LOST_SECONDS = 150
PATIENCE_SECONDS = 300.0
KILL = "kill -9 $(cat /proc/1/task/1/children)"
"""The process that the container's init has started."""

WRITE = """
from cnai.backends import credentials
from cnai.backends.kubernetes import manifests
from cnai.engine.control.client import EngineClient
from cnai.engine.records import Record, Room
from cnai.engine.store import Store
from cnai.paths import store_root
from cnai.run.launch import build_spec, capture
from training import digits

engine, namespace, name, epochs, pause = WORDS
captured = capture(digits, (epochs, pause), {})
record = Record(who="pat", cwd="/home/cnai", engine=engine, room=Room(ranks_per_node=1, cpu=1.0))
spec = build_spec(captured, {"ranks": 2, "backend": "kubernetes", "name": name, "checkpoint_every": 10})
run = Store(store_root()).create(spec, record, captured.payload, captured.code_zip).run_id
if name == "first":
    credentials.issue(engine, manifests.address(engine, namespace))
else:
    found = credentials.read(engine)
    EngineClient(found.address, found.security()).submit(run, str(store_root()))
print(run)
"""
WISH = """
from cnai.backends import credentials
from cnai.engine.commands import Wish
from cnai.engine.control.client import EngineClient

engine, run, verb, value = WORDS
found = credentials.read(engine)
EngineClient(found.address, found.security()).wish(run, Wish(verb, value))
"""


@pytest.fixture(scope="module")
def desk(cluster, images, tmp_path_factory):
    """A tenant with a home that contains the training."""
    with workplace.notebook(cluster, images["notebook"], tmp_path_factory.mktemp("desk")) as found:
        found.run("sh", "-c", f"cat > {workplace.HOME}/training.py", given=TRAINING.read_text())
        yield found


@pytest.fixture(scope="module")
def operator(cluster, images, desk):
    """The operator as an administrator deploys it, but for one namespace, because other tests run at the same time."""
    made = operators.deployment(replace(desk.installation.settings, hub_image=images["hub"]))
    name = f"{made['metadata']['name']}-{secrets.token_hex(2)}"
    labels = {**made["metadata"]["labels"], "app.kubernetes.io/instance": name}
    made["metadata"] |= {"name": name, "labels": labels}
    made["spec"] |= {"selector": {"matchLabels": labels}}
    made["spec"]["template"]["metadata"]["labels"] = labels
    (container,) = made["spec"]["template"]["spec"]["containers"]
    container["args"] += ["--namespace", desk.namespace, "--lost-seconds", str(LOST_SECONDS)]
    where = made["metadata"]["namespace"]
    cluster.create(made, where)
    try:
        cluster.wait(f"deployment/{name}", "condition=Available", where)
        yield SimpleNamespace(name=name, namespace=where)
        said = cluster.kubectl("logs", f"deployment/{name}", "-n", where)
        assert "is forbidden" not in said, said
    finally:
        # Objects with the operator's finalizer can be deleted only while the operator runs.
        cluster.kubectl("delete", "daskclusters", "--all", "-n", desk.namespace, "--timeout=300s")
        cluster.kubectl("delete", "deployment", name, "-n", where)


@pytest.fixture(scope="module")
def lost(desk, operator):
    """A Dask cluster whose scheduler fits on no node."""
    made = tenancy.dask_cluster("lost", desk.cluster.base, workers=1, gpus=1)
    made["spec"]["scheduler"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "nowhere"}
    desk.cluster.create(made, desk.namespace)
    until(lambda: desk.get("pods", "-l", "dask.org/cluster-name=lost,dask.org/component=worker"))
    return "lost"


@pytest.fixture(scope="module")
def first(desk, operator, lost):
    """A short run that was in the store before its engine of two nodes was requested."""
    run = write(desk, "first", 2, 0)
    place = manifests.Place(
        namespace=desk.namespace,
        claim="home",
        home=workplace.HOME,
        environment={"CNAI_HOME": f"{workplace.HOME}/cnai", **workplace.QUIET},
        idle_seconds=IDLE_SECONDS,
    )
    image = desk.get("pods", "-l", "component=singleuser-server")[0]["spec"]["containers"][0]["image"]
    desk.cluster.create(manifests.engine(NAME, place, FLAVOR, image, 2), desk.namespace)
    return run


@pytest.fixture(scope="module")
def endless(desk, first):
    """A run on the same engine that continues until it is stopped."""
    wait_for(desk, first, lambda events: events and states(events) and states(events)[-1][0].final)
    return write(desk, "endless", 10**6, 0.2)


def write(desk, *words):
    return desk.python(WRITE.replace("WORDS", repr((NAME, desk.namespace, *words)))).split()[-1]


def wish(desk, *words):
    desk.python(WISH.replace("WORDS", repr((NAME, *words))))


def journal(desk, run):
    code, text = desk.run("cat", f"{workplace.HOME}/cnai/runs/{run}/events.jsonl")
    return [Event.from_json(line) for line in text[: text.rfind("\n") + 1].splitlines()] if code == 0 else []


def states(events):
    return [(State(e.payload["state"]), e.payload["reason"]) for e in events if e.kind is Kind.STATE]


def begins(events):
    return [(e.payload["ranks"], e.payload["from_step"]) for e in events if e.kind is Kind.GENERATION]


def last_step(events):
    return max((e.step for e in events if e.step is not None), default=0)


def wait_for(desk, run, condition):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition(events := journal(desk, run)):
        facts = [event for event in events if event.kind not in {Kind.METRIC, Kind.CHECKPOINT}][-10:]
        assert time.monotonic() < deadline, (facts, desk.cluster.kubectl("get", "pods,events", "-n", desk.namespace))
        time.sleep(1)
    return events


def trains(after=-1):
    """Tell whether a later generation than this one has done some steps."""

    def look(events):
        steps = [e.step for e in events if e.kind is Kind.METRIC and e.generation > after]
        return len(steps) > 20 and states(events)[-1][0] is State.RUNNING

    return look


def pods(desk, component):
    """Return the pods that are not being deleted, by name."""
    labels = f"dask.org/cluster-name={NAME},dask.org/component={component}"
    found = desk.get("pods", "-l", labels)
    return {each["metadata"]["name"]: each for each in found if "deletionTimestamp" not in each["metadata"]}


def disturbed(desk, run, disturb):
    """Disturb a running training; return its journal once it has resumed."""
    before = wait_for(desk, run, trains())
    disturb()
    events = wait_for(desk, run, trains(after=before[-1].generation))
    return SimpleNamespace(events=events, new=states(events)[len(states(before)) :], begin=begins(events)[-1])


def test_a_run_in_the_store_is_trained_on_two_pods(desk, first):
    events = wait_for(desk, first, lambda events: events and states(events) and states(events)[-1][0].final)
    assert states(events)[-1][0] is State.SUCCEEDED, states(events)
    assert begins(events) == [(2, 0)]
    used = {
        pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] for pod in pods(desk, "worker").values()
    }
    assert used == {"1"}


def test_evicted_it_leaves_at_a_step(desk, endless):
    gone = next(iter(pods(desk, "worker")))
    path = f"/api/v1/namespaces/{desk.namespace}/pods/{gone}/eviction"
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": gone, "namespace": desk.namespace}}
    seen = disturbed(desk, endless, lambda: desk.cluster.kubectl("create", "--raw", path, "-f", "-", given=eviction))
    assert seen.new[0] == (State.RESTARTING, "its node is shutting down")
    steps = [e.step for e in seen.events if e.kind is Kind.METRIC]
    assert sorted(steps) == list(range(1, last_step(seen.events) + 1)), "no step is done twice, none is lost"
    until(lambda: len(pods(desk, "worker")) == 2)


def test_a_killed_node_is_replaced(desk, endless):
    killed = next(iter(pods(desk, "worker")))
    seen = disturbed(
        desk, endless, lambda: desk.cluster.kubectl("exec", killed, "-n", desk.namespace, "--", "sh", "-c", KILL)
    )
    assert seen.new[0][0] is State.RESTARTING
    assert "was lost; continuing from step-" in seen.new[0][1]
    assert seen.begin[1] > 0


def test_a_killed_scheduler_comes_back_and_goes_on(desk, endless):
    (scheduler,) = pods(desk, "scheduler")
    kill = ("exec", scheduler, "-n", desk.namespace, "--", "sh", "-c", KILL)
    seen = disturbed(desk, endless, lambda: desk.cluster.kubectl(*kill))
    assert seen.new[0] == (State.RESTARTING, "the engine was lost and started again")
    assert seen.begin[1] > 0


def test_a_deleted_scheduler_is_replaced_without_losing_a_step(desk, endless):
    (scheduler,) = pods(desk, "scheduler")
    before = last_step(journal(desk, endless))
    delete = ("delete", "pod", scheduler, "-n", desk.namespace, "--wait=false")
    seen = disturbed(desk, endless, lambda: desk.cluster.kubectl(*delete))
    assert [reason for _, reason in seen.new[:2]] == [
        "its node is shutting down",
        "the engine was lost and started again",
    ]
    assert seen.begin[1] > before
    assert scheduler not in pods(desk, "scheduler")


def test_fewer_ranks_free_a_node_and_it_goes(desk, endless):
    seen = disturbed(desk, endless, lambda: wish(desk, endless, "scale", 1))
    assert seen.begin[0] == 1
    desk.cluster.kubectl("scale", f"daskworkergroup/{NAME}-default", "-n", desk.namespace, "--replicas=1")
    until(lambda: len(pods(desk, "worker")) == 1)
    step = last_step(journal(desk, endless))
    events = wait_for(desk, endless, lambda events: last_step(events) > step + 20)
    assert begins(events) == begins(seen.events), "the node that works stays"


def test_when_nothing_goes_on_everything_is_given_back(desk, endless):
    wish(desk, endless, "stop", None)
    wait_for(desk, endless, lambda events: states(events)[-1][0] is State.CANCELLED)
    mine = ("-l", f"dask.org/cluster-name={NAME}")
    until(lambda: NAME not in [each["metadata"]["name"] for each in desk.get("daskclusters")])
    for kind in ("pods", "deployments", "services", "daskworkergroups"):
        until(lambda kind=kind: not desk.get(kind, *mine))


def test_nodes_without_a_scheduler_are_not_kept_for_ever(desk, lost):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while desk.get("pods", "-l", f"dask.org/cluster-name={lost}"):
        assert time.monotonic() < deadline
        time.sleep(1)
    assert lost not in [each["metadata"]["name"] for each in desk.get("daskclusters")]


def test_nothing_holds_a_gpu_any_more(desk, endless, lost):
    def used():
        return desk.cluster.get("resourcequota", "tenant", "-n", desk.namespace)["status"]["used"]

    until(lambda: used()["requests.nvidia.com/gpu"] == "0")


def test_an_operator_that_is_killed_in_a_resize_ends_it(desk, operator):
    desk.cluster.create(tenancy.dask_cluster("wide", desk.cluster.base, workers=1), desk.namespace)
    group = ("-l", "dask.org/workergroup-name=wide-default")
    until(lambda: len(desk.get("deployments", *group)) == 1)
    for replicas in (5, 2):
        desk.cluster.kubectl("scale", "daskworkergroup/wide-default", "-n", desk.namespace, f"--replicas={replicas}")
        label = f"app.kubernetes.io/instance={operator.name}"
        desk.cluster.kubectl("delete", "pod", "-n", operator.namespace, "-l", label, "--grace-period=0", "--force")
        until(lambda replicas=replicas: len(desk.get("deployments", *group)) == replicas)
        time.sleep(5)  # no more pods are added or deleted
        assert len(desk.get("deployments", *group)) == replicas
    desk.cluster.kubectl("delete", "daskcluster", "wide", "-n", desk.namespace)
    until(lambda: not desk.get("pods", "-l", "dask.org/cluster-name=wide"))
