"""The hub dies on a real cluster, at any moment: no server is lost, and none is started twice."""

from __future__ import annotations

import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import hubpod
import pytest
from hubpod import until

CROWD = 20


@pytest.fixture(scope="module")
def hub(cluster, images):
    with hubpod.installed(cluster, images, hubpod.SMALL) as hub:
        yield hub


@pytest.fixture
def ada(hub):
    with hub.visited_by("ada") as name:
        yield name


def kill(hub, how):
    hub.kill_pod() if how == "pod" else hub.kill_process()


def is_logged_in(session, person):
    page = session.get("/hub/home")
    return page.status_code == 200 and page.url.path == "/hub/home" and person in page.text


@pytest.fixture
def crowd(hub):
    mark = secrets.token_hex(2)
    names = [hub.person(f"crowd-{mark}-{number:02}") for number in range(CROWD)]
    hub.api.post("/users", json={"usernames": names}).raise_for_status()
    hub.api.post("/groups/creators/users", json={"users": names}).raise_for_status()
    yield names
    hub.wait_until_it_answers()
    with ThreadPoolExecutor(CROWD) as pool:
        list(pool.map(hub.stop, names))


def test_twenty_spawns_at_once_survive_a_hub_that_dies_twice(hub, crowd):
    with ThreadPoolExecutor(CROWD) as pool:
        accepted = [answer.status_code for answer in pool.map(hub.start, crowd)]
    assert set(accepted) == {202}
    until(lambda: sum(bool(hub.pods(name)) for name in crowd) >= CROWD // 2, "half of the pods are made")
    for how in ("process", "pod"):
        kill(hub, how)
        hub.wait_until_it_answers()
    for name in crowd:
        hub.wait_ready(name)
    # No server is lost: everybody's server answers. None was started twice: every pod belongs to a server.
    assert [len(hub.pods(name)) for name in crowd] == [1] * CROWD
    for name in crowd:
        until(lambda name=name: hub.leads_to(name), f"{name} is reached")


@pytest.mark.parametrize("how", ["pod", "process"])
@pytest.mark.parametrize("moment", ["asked", "made", "running"])
def test_the_hub_dies_during_a_spawn(hub, ada, how, moment):
    session = hub.login(ada)
    assert hub.start(ada).status_code == 202
    if moment == "made":
        until(lambda: hub.pods(ada), "the pod is there")
    if moment == "running":
        until(lambda: [pod for pod in hub.pods(ada) if pod["status"]["phase"] == "Running"], "the pod runs")
    kill(hub, how)
    hub.wait_until_it_answers()
    assert is_logged_in(session, ada)
    # Nobody repeats the request: the accepted start finishes.
    hub.wait_ready(ada)
    assert len(hub.pods(ada)) == 1
    until(lambda: hub.leads_to(ada), "the proxy knows the way")


@pytest.mark.parametrize("ways", [("pod", "process", "pod"), ("process", "pod", "process")], ids="-".join)
def test_the_hub_dies_before_and_after_a_spawn_and_in_its_stop(hub, ada, ways):
    """Kill them in turns: kubelet delays the restart of a container that ends three times within a minute."""
    before, after, stop = ways
    session = hub.login(ada)
    kill(hub, before)
    hub.wait_until_it_answers()
    assert is_logged_in(session, ada)
    hub.start(ada)
    hub.wait_ready(ada)
    (pod,) = hub.pods(ada)
    kill(hub, after)
    # The proxy keeps its routes without the hub.
    assert hub.leads_to(ada)
    hub.wait_until_it_answers()
    hub.wait_ready(ada)
    (same,) = hub.pods(ada)
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    assert hub.leads_to(ada)
    with ThreadPoolExecutor(1) as aside, held(hub.cluster, pod):
        aside.submit(hub.api.delete, f"/users/{ada}/server", timeout=10)  # the hub dies before it answers
        until(lambda: ["deletionTimestamp" in each["metadata"] for each in hub.pods(ada)] == [True], "the pod is to go")
        kill(hub, stop)
        hub.wait_until_it_answers()
    until(lambda: not hub.pods(ada) and not hub.server(ada), "neither pod nor server is left")


@contextmanager
def held(cluster, pod):
    """A deleted pod exists until its termination has finished."""
    where = ("pod", pod["metadata"]["name"], "-n", pod["metadata"]["namespace"], "--type=merge", "-p")
    cluster.kubectl("patch", *where, json.dumps({"metadata": {"finalizers": ["cnai.dev/held-by-a-test"]}}))
    try:
        yield
    finally:
        cluster.kubectl("patch", *where, json.dumps({"metadata": {"finalizers": None}}))
