"""Outages of a part of the cluster: runs continue, and all parts recover by themselves."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("dask_kubernetes", reason="the extra `kubernetes` is not installed")

import httpx
import hubpod
import realcluster
import tenancy
import workplace
from onenode import life, processes
from tenancy import until

from cnai_hub import tenants

if TYPE_CHECKING:
    from pathlib import Path

AWAY_SECONDS = 60
"""More than the 50 s after which KubeSpawner gives up."""
TRAIN = """
import os
import cnai, torch

def fit(steps):
    import time
    ctx = cnai.context()
    net = torch.nn.Linear(8, 1)
    model, optimizer = ctx.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1))
    for step in ctx.loop(steps):
        ctx.backward(model(torch.ones(4, 8)).mean())
        optimizer.step()
        optimizer.zero_grad()
        ctx.report(loss=1.0)
        time.sleep(0.1)
    return ctx.world_size

run = cnai.train(fit, ({steps},), ranks={ranks}, flavor="gpu", checkpoint_every=10, name="outage")
print(run.id, flush=True)
os._exit(0)  # like a killed kernel, which no longer owns the run
"""


class Watched:
    """A run, read from the volume of its store, which works while the API server is down."""

    def __init__(self, notebook, steps: int, ranks: int) -> None:
        self.id = notebook.python(TRAIN.format(steps=steps, ranks=ranks)).split()[-1]
        [claim] = [each for each in notebook.get("pvc") if each["metadata"]["name"] == "home"]
        volumes = notebook.cluster.place.state / "volumes"
        self.folder: Path = volumes / claim["spec"]["volumeName"] / "cnai" / "runs" / self.id

    @property
    def events(self) -> list[dict]:
        """Return the text on disk so far, without an unfinished line."""
        lines = (self.folder / "events.jsonl").read_text().rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in lines]

    @property
    def step(self) -> int:
        return max((event["step"] or 0 for event in self.events if event["kind"] == "metric"), default=0)

    @property
    def generation(self) -> int:
        return max((event["generation"] for event in self.events), default=0)

    @property
    def world_size(self) -> int:
        return next((each["payload"]["ranks"] for each in reversed(self.events) if each["kind"] == "generation"), 0)

    @property
    def state(self) -> str:
        told = [event["payload"]["state"] for event in self.events if event["kind"] == "state"]
        return told[-1] if told else "PENDING"

    def reaches(self, step: int) -> None:
        """Wait until the run has reached this point; fail if it ends before."""
        wait(lambda: self.step >= step or self.state in ("SUCCEEDED", "FAILED", "CANCELLED"), str(self.id))
        assert self.step >= step, self.events[-3:]


def wait(found, what: str, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found():
                return
        except FileNotFoundError:
            pass
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@pytest.fixture(scope="module")
def notebook(cluster, images, tmp_path_factory):
    if cluster.place is None:
        pytest.skip("parts of a cluster are stopped only where `make cluster` started it")
    with workplace.notebook(cluster, images["notebook"], tmp_path_factory.mktemp("accounts")) as found:
        yield found


@pytest.fixture(scope="module")
def hub(cluster, images, notebook):
    with hubpod.installed(cluster, images) as hub:
        yield hub


@pytest.fixture(scope="module")
def before(hub):
    """A server, and the hub that started it."""
    ada = hub.person("ada")
    hub.start(ada)
    hub.wait_ready(ada)
    [server] = [each["metadata"]["uid"] for each in hub.pods(ada)]
    return hub.life(), server


@pytest.fixture(scope="module")
def run(notebook):
    """A run on two nodes that outlives all tests here; the operator of its namespace has been stopped."""
    with notebook.operator():
        run = Watched(notebook, 100_000, ranks=2)
        run.reaches(20)
    return run


@pytest.fixture(scope="module", autouse=True)
def alone(before, run):
    """Install everything for the tests, then wait until no other test uses the API server."""
    with realcluster.alone("cluster"):
        yield


@pytest.fixture(scope="module")
def operator(notebook, alone):
    """The operator for all namespaces, as administrators deploy it."""
    with notebook.operator(everywhere=True) as process:
        yield process


@pytest.fixture
def stopped(own_cluster):
    """Kill a component, and start it again at the end in any case."""
    gone: list[str] = []

    def stop(name: str) -> None:
        gone.append(name)
        assert processes.stop(own_cluster.place, name, grace_seconds=0)

    def back(name: str) -> None:
        gone.remove(name)
        # Our components elect no leader, so unlike others they don't exit without an API server, and continue with
        # stale state. Kubelet would look for new pods only a minute later.
        others = ("controller-manager", "scheduler", "proxy", "storage", "kubelet") if name == "apiserver" else ()
        for each in others:
            processes.stop(own_cluster.place, each)
        life.restart(own_cluster.place, name)
        ready = lambda: life.kubectl_works(own_cluster.place, "get", "--raw", "/readyz")  # noqa: E731
        processes.wait(own_cluster.place, name, "the API server", ready, 120)
        for each in others:
            life.restart(own_cluster.place, each)

    stop.back = back
    yield stop
    for name in list(gone):
        back(name)


def test_runs_and_the_hub_go_on_while_the_api_server_is_away(hub, before, operator, run, stopped):
    grace = hub.person("grace")
    [proxy] = hub.cluster.get("pods", "-n", hub.namespace, "-l", "component=proxy")["items"]
    began = run.generation
    stopped("apiserver")
    step = run.step
    time.sleep(AWAY_SECONDS)
    run.reaches(step + AWAY_SECONDS)
    assert "Kubernetes doesn't answer" in what_is_said_of_a_start(hub, grace, proxy["status"]["podIP"])
    stopped.back("apiserver")
    hub.wait_until_it_answers()

    def asked():
        """Request a server again if necessary: the hub's first answer may still be about the outage."""
        if hub.server(grace) is None:
            hub.start(grace)
        return hub.pods(grace)

    hubpod.until(asked, "a new server is made")
    run.reaches(run.step + 20)
    assert run.generation == began
    assert operator.poll() is None


def what_is_said_of_a_start(hub, name: str, address: str) -> str:
    """Request a server at the proxy's own address, because port forwarding needs the API server."""
    url = f"http://{address}:8000/hub/api/users/{name}"
    with httpx.Client(base_url=url, headers=hub.api.headers, timeout=120) as near:
        said = near.post("/server", json={}).text
        return said + near.get("/server/progress").text


def test_etcd_comes_back(notebook, operator, run, stopped):
    stopped("etcd")
    time.sleep(5)
    stopped.back("etcd")
    began = run.generation
    # `kubectl exec` needs time of its own to reach a node again after an outage of the API server.
    until(lambda: notebook.run("cnai", "scale", run.id, "1")[0] == 0)
    wait(lambda: run.generation > began and run.state == "RUNNING", "the run has one rank")
    # The operator still receives requests, and has never died.
    until(lambda: len(notebook.get("pods", "-l", "dask.org/component=worker")) == 1)
    assert operator.poll() is None


def test_an_operator_that_dies_during_a_resize(notebook, operator, run):
    with ThreadPoolExecutor(1) as aside:
        answer = aside.submit(notebook.run, "cnai", "scale", run.id, "3")
        until(lambda: [each["spec"]["worker"]["replicas"] for each in notebook.get("daskworkergroups")] == [3])
        operator.kill()
        operator.wait()
        assert not answer.done()
        # No request is lost: the next operator finds it at the API server.
        with notebook.operator(everywhere=True) as second:
            code, said = answer.result()
            assert code == 0, said
            wait(lambda: run.world_size == 3 and run.state == "RUNNING", "the run has three ranks")
            assert notebook.run("cnai", "stop", run.id)[0] == 0
            wait(lambda: run.state == "CANCELLED", "the run is stopped")
            until(lambda: notebook.get("daskclusters") == [])
            until(lambda: [each["metadata"]["name"] for each in notebook.get("pods")] == ["notebook"])
            assert notebook.get("deployments") == []
            assert second.poll() is None


def test_the_hub_is_the_same_and_starts_servers(hub, before):
    hub.wait_ready(hub.person("grace"))
    life, server = before
    assert hub.life() == life
    assert [each["metadata"]["uid"] for each in hub.pods(hub.person("ada"))] == [server]
    assert hub.server(hub.person("ada"))["ready"]


@pytest.fixture
def undefined(notebook):
    """The definition of Dask clusters was never installed, or was deleted."""
    made = tenants.cluster_manifests(notebook.installation.settings)
    definitions = [each for each in made if each["kind"] == "CustomResourceDefinition"]
    names = [f"crd/{each['metadata']['name']}" for each in definitions]
    tenancy.let_go(notebook.cluster, notebook.namespace)
    notebook.cluster.kubectl("delete", *names)
    until(lambda: "kubernetes.dask.org" not in notebook.cluster.kubectl("get", "--raw", "/apis"))
    yield
    tenancy.apply(notebook.cluster, *definitions)
    notebook.cluster.kubectl("wait", "--for=condition=Established", *names)


def test_without_resource_definitions_doctor_and_runs_say_whom_to_ask(notebook, undefined):
    said = notebook.run("cnai", "doctor")[1]
    assert "wrong    resource definitions: " in said, said
    code, said = notebook.run("sh", "-c", "cd && touch nothing.py && cnai train nothing.py --flavor gpu")
    assert code == 1
    (line,) = [line for line in said.splitlines() if "exit code" not in line]  # kubectl adds this line
    assert (
        line == "this cluster doesn't know these objects; ask your administrator to apply `python -m cnai_hub.tenants`"
    )
    assert "nothing" not in notebook.run("cnai", "runs", "--limit", "1")[1]
