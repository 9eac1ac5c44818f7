"""What happens when a part of the cluster is away: runs go on, and everybody comes back by themselves."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("dask_kubernetes", reason="the extra `kubernetes` is not installed")

import httpx
import hubpod
import workplace
from onenode import life, processes
from tenancy import until

if TYPE_CHECKING:
    from pathlib import Path

AWAY_SECONDS = 60
"""More than the 50 s in which KubeSpawner gives up."""
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
os._exit(0)  # as a kernel that is killed: the run is not its own any more
"""


class Watched:
    """A run, read from the volume of its store: that works while no API server answers."""

    def __init__(self, notebook, steps: int, ranks: int) -> None:
        self.id = notebook.python(TRAIN.format(steps=steps, ranks=ranks)).split()[-1]
        [claim] = [each for each in notebook.get("pvc") if each["metadata"]["name"] == "home"]
        volumes = notebook.cluster.place.state / "volumes"
        self.folder: Path = volumes / claim["spec"]["volumeName"] / "cnai" / "runs" / self.id

    @property
    def events(self) -> list[dict]:
        """What is on disk so far, without a line that is being written."""
        lines = (self.folder / "events.jsonl").read_text().rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in lines]

    @property
    def step(self) -> int:
        return max((event["step"] or 0 for event in self.events if event["kind"] == "metric"), default=0)

    @property
    def generation(self) -> int:
        return max((event["generation"] for event in self.events), default=0)

    @property
    def state(self) -> str:
        told = [event["payload"]["state"] for event in self.events if event["kind"] == "state"]
        return told[-1] if told else "PENDING"

    def reaches(self, step: int) -> None:
        """Wait until the run is so far; one that has ended never will be."""
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


@pytest.fixture
def stopped(own_cluster):
    """Stop a component; it is started again whatever happens."""
    gone: list[str] = []

    def stop(name: str) -> None:
        gone.append(name)
        assert processes.stop(own_cluster.place, name)

    def back(name: str) -> None:
        gone.remove(name)
        life.restart(own_cluster.place, name)
        ready = lambda: life.kubectl_works(own_cluster.place, "get", "--raw", "/readyz")  # noqa: E731
        processes.wait(own_cluster.place, name, "the API server", ready, 120)
        if name == "apiserver":
            # Ours elect no leader, so they don't end without an API server as others do, and would wait up to a minute.
            for each in ("controller-manager", "scheduler"):
                processes.stop(own_cluster.place, each)
                life.restart(own_cluster.place, each)

    stop.back = back
    yield stop
    for name in list(gone):
        back(name)


def ends_well(notebook, run: Watched, operator) -> None:
    """The run ends as if nothing had happened, and the operator, which never died, takes its pods away."""
    # `kubectl exec` has its own way back to a node whose API server was away.
    until(lambda: notebook.run("cnai", "stop", run.id)[0] == 0)
    wait(lambda: run.state == "CANCELLED", "the run is stopped")
    assert operator.poll() is None
    until(lambda: notebook.get("daskclusters") == [])
    until(lambda: [each["metadata"]["name"] for each in notebook.get("pods")] == ["notebook"])


@pytest.fixture
def hub(own_cluster, images):
    with hubpod.installed(own_cluster, images) as hub:
        yield hub


def test_runs_and_the_hub_go_on_while_the_api_server_is_away(notebook, hub, stopped):
    ada, grace = hub.person("ada"), hub.person("grace")
    hub.start(ada)
    hub.wait_ready(ada)
    [server] = [each["metadata"]["uid"] for each in hub.pods(ada)]
    [proxy] = hub.cluster.get("pods", "-n", hub.namespace, "-l", "component=proxy")["items"]
    life = hub.life()
    with notebook.operator() as operator:
        run = Watched(notebook, 20_000, ranks=2)
        run.reaches(20)
        stopped("apiserver")
        before, began = run.step, run.generation
        time.sleep(AWAY_SECONDS)
        run.reaches(before + AWAY_SECONDS)
        assert "Kubernetes doesn't answer" in what_is_said_of_a_start(hub, grace, proxy["status"]["podIP"])
        stopped.back("apiserver")
        run.reaches(run.step + 20)
        assert run.generation == began
        ends_well(notebook, run, operator)
    hub.wait_until_it_answers()

    def served():
        """Ask, and ask again: kube-proxy may take half a minute to lead pods to an API server that is back."""
        server = hub.server(grace)
        if server is None:
            hub.start(grace)
        return server and server["ready"]

    hubpod.until(served, "a new server is ready")
    assert hub.life() == life, "the hub has gone on"
    assert [each["metadata"]["uid"] for each in hub.pods(ada)] == [server]
    assert hub.server(ada)["ready"]


def what_is_said_of_a_start(hub, name: str, address: str) -> str:
    """Ask for a server at the proxy's own address: whoever forwards a port needs the API server."""
    url = f"http://{address}:8000/hub/api/users/{name}"
    with httpx.Client(base_url=url, headers=hub.api.headers, timeout=120) as near:
        said = near.post("/server", json={}).text
        return said + near.get("/server/progress").text


def test_etcd_comes_back(notebook, stopped):
    with notebook.operator() as operator:
        run = Watched(notebook, 20_000, ranks=1)
        run.reaches(20)
        stopped("etcd")
        time.sleep(5)
        stopped.back("etcd")
        began = run.generation
        # The operator still hears what is wanted of it.
        until(lambda: notebook.run("cnai", "scale", run.id, "2")[0] == 0)
        wait(lambda: run.generation > began and run.state == "RUNNING", "the run has two ranks")
        ends_well(notebook, run, operator)


def test_an_operator_that_dies_during_a_resize(notebook, own_cluster):
    with notebook.operator() as first:
        run = Watched(notebook, 200, ranks=1)
        run.reaches(10)
        code, said = notebook.run("cnai", "scale", run.id, "3")
        assert code == 0, said
        first.send_signal(signal.SIGKILL)
        first.wait()
    # Nothing is lost of what was wanted: whoever comes next finds it with the API server.
    with notebook.operator() as second:
        wait(lambda: run.state == "SUCCEEDED", "the run ends")
        sizes = [event["payload"]["ranks"] for event in run.events if event["kind"] == "generation"]
        assert sizes[-1] == 3, sizes
        until(lambda: notebook.get("daskclusters") == [])
        until(lambda: [each["metadata"]["name"] for each in notebook.get("pods")] == ["notebook"])
        assert notebook.get("deployments") == []
        assert second.poll() is None
