"""The hub in its pod on a real cluster: who may start what, what its account may do, what its death does to servers."""

from __future__ import annotations

import json
import re
import secrets
from concurrent.futures import ThreadPoolExecutor

import hubpod
import pytest
from hubpod import until
from realcluster import Refused

from cnai_hub import tenants

# Hardly anything is requested, so that twenty fit on a small node beside everything else.
VALUES = {
    "custom": {
        "cnai": {
            "catalog": {
                "image": [
                    {"name": "torch", "title": "PyTorch", "default": True},
                    {"name": "same", "title": "The same under another name"},
                ],
                "flavor": [
                    {"name": "tiny", "title": "Tiny", "cpu": 0.5, "memory_gib": 0.75, "default": True},
                    {"name": "wide", "title": "Wide", "cpu": 1, "memory_gib": 1, "price_per_hour": 0.1},
                    {"name": "gpu", "title": "GPU", "cpu": 0.5, "memory_gib": 0.75, "gpus": 1, "groups": ["gpu"]},
                ],
            },
            "cpu_share": 0.02,
            "memory_share": 0.2,
            "home": {"storage_gib": 0.25},
        }
    }
}
FLAVORS = {flavor["name"]: flavor for flavor in VALUES["custom"]["cnai"]["catalog"]["flavor"]}
IMAGES = [image["name"] for image in VALUES["custom"]["cnai"]["catalog"]["image"]]
CROWD = 20


@pytest.fixture(scope="module")
def hub(cluster, images):
    same = {"custom": {"cnai": {"references": {"same": images["notebook"]}}}}
    with hubpod.installed(cluster, images, VALUES, same) as hub:
        yield hub


@pytest.fixture
def ada(hub):
    yield hub.person("ada")
    hub.wait_until_it_answers()
    hub.stop(hub.person("ada"))


@pytest.fixture
def grace(hub):
    yield hub.person("grace")
    hub.wait_until_it_answers()
    hub.stop(hub.person("grace"))


def in_pod(hub, pod, code, container="notebook"):
    """What a program prints in a pod."""
    place = ("-n", pod["metadata"]["namespace"], pod["metadata"]["name"], "-c", container)
    return hub.cluster.kubectl("exec", *place, "--", "python", "-c", code).strip()


# The pod itself


def can(hub, verb, resource, *words):
    account = f"--as=system:serviceaccount:{hub.namespace}:hub"
    try:
        hub.cluster.kubectl("auth", "can-i", verb, resource, account, *words)
    except Refused:
        return False
    return True


def test_the_hubs_account_may_do_what_it_needs_and_no_more(hub):
    assert can(hub, "create", "namespaces") and can(hub, "watch", "pods", "-A") and can(hub, "watch", "events", "-A")
    own, system, default = (("-n", namespace) for namespace in (hub.namespace, "kube-system", "default"))
    for where in (own, system, default):
        for verb, resource in (
            ("get", "secrets"),
            ("list", "secrets"),
            ("create", "pods"),
            ("delete", "pods"),
            ("create", "pods/exec"),
            ("create", "serviceaccounts/token"),
            ("patch", "deployments"),
        ):
            assert not can(hub, verb, resource, *where), (verb, resource, where)
    assert not can(hub, "delete", "namespaces") and not can(hub, "create", "clusterrolebindings")


def test_the_pods_are_nobody_and_can_change_nothing_of_their_image(hub):
    pods = hub.cluster.get("pods", "-n", hub.namespace)["items"]
    assert {pod["metadata"]["labels"]["component"] for pod in pods} == {"hub", "proxy"}
    for pod in pods:
        component = pod["metadata"]["labels"]["component"]
        name = pod["spec"]["containers"][0]["name"]
        words = ("-n", hub.namespace, "exec", pod["metadata"]["name"], "-c", name, "--")
        assert int(hub.cluster.kubectl(*words, "id", "-u")) > 0
        with pytest.raises(Refused, match="Read-only file system"):
            hub.cluster.kubectl(*words, "touch", "/opt/cnai/x")
        token = ("ls", "/var/run/secrets/kubernetes.io/serviceaccount/token")
        if component == "hub":
            hub.cluster.kubectl(*words, *token)
        else:
            with pytest.raises(Refused, match="No such file"):
                hub.cluster.kubectl(*words, *token)


# Who gets what


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("flavor", FLAVORS)
def test_every_profile_is_spawned(hub, ada, flavor, image, gpu_count):
    assert hub.start(ada, flavor=flavor, image=image).status_code in {201, 202}
    model = hub.wait_ready(ada)
    assert model["user_options"] == {"flavor": flavor, "image": image}
    (pod,) = hub.pods(ada)
    (container,) = pod["spec"]["containers"]
    limits, chosen = container["resources"]["limits"], FLAVORS[flavor]
    assert int(limits["memory"]) == chosen["memory_gib"] * 2**30
    assert int(limits.get("nvidia.com/gpu", 0)) == chosen.get("gpus", 0)
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert (environment["CNAI_FLAVOR"], environment["CNAI_IMAGE"]) == (flavor, image)
    assert answers(hub, ada)


def test_what_is_for_others_is_refused_with_a_sentence_and_leaves_nothing(hub, grace):
    refused = hub.start(grace, flavor="gpu")
    assert refused.status_code == 400
    assert "members of gpu only; you may start: tiny, wide" in refused.json()["message"]
    for options, sentence in (
        ({"flavor": "huge"}, "unknown flavor 'huge'"),
        ({"image": "evil.example/miner"}, "unknown image 'evil.example/miner'"),
        ({"node": "cnai-node"}, "node"),
    ):
        refused = hub.start(grace, **options)
        assert refused.status_code == 400 and sentence in refused.json()["message"], refused.text
    assert hub.server(grace) is None
    # The same person, with what is theirs.
    assert hub.start(grace, flavor="tiny").status_code in {201, 202}
    hub.wait_ready(grace)


def test_a_stakeholder_gets_no_server(hub):
    guest = hub.person("guest")
    session = hub.login(guest)
    assert session.get("/hub/").url.path == "/services/apps/"
    assert session.get("/hub/spawn").status_code in {403, 404}
    xsrf = session.cookies.get("_xsrf", path="/hub/")
    asked = session.post(f"/hub/api/users/{guest}/server", json={"flavor": "tiny"}, headers={"X-XSRFToken": xsrf})
    assert asked.status_code in {403, 404}, asked.text
    assert hub.server(guest) is None
    namespaces = hub.cluster.get("namespaces")["items"]
    assert tenants.namespace_name(guest) not in [each["metadata"]["name"] for each in namespaces]


def test_somebody_logs_in_with_a_browser_and_starts_a_server(hub, ada):
    pytest.importorskip("playwright", reason="Playwright is not installed")
    from browser.chromium import Visitor, chromium

    with chromium() as browser:
        visitor = Visitor(browser, hub.url)
        page = visitor.login(ada, hub.password(ada), "/hub/spawn")
        page.get_by_label("Wide").check()
        page.get_by_role("button", name="Start").click()
        page.wait_for_url(re.compile("/lab"))
        page.locator("#jp-MainMenu").wait_for()
        assert visitor.outside == []
    (pod,) = hub.pods(ada)
    assert pod["metadata"]["labels"]["cnai.dev/flavor"] == "wide"


# What a server's tokens open

_ASK = """
import json, os, urllib.error, urllib.request

def ask(url):
    headers = {{"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"]}}
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code

print(json.dumps({{name: ask(url) for name, url in {questions!r}.items()}}))
"""


def test_a_notebooks_tokens_open_nothing_of_the_hub_or_of_others(hub, ada, grace):
    for person in (ada, grace):
        hub.start(person, flavor="tiny")
    for person in (ada, grace):
        hub.wait_ready(person)
    (pod,) = hub.pods(grace)
    inside, proxy = f"http://hub.{hub.namespace}:8081/hub/api", f"http://proxy-public.{hub.namespace}"
    questions = {
        "self": f"{inside}/user",
        "own server": f"{proxy}/user/{grace}/api/contents",
        "other server": f"{proxy}/user/{ada}/api/contents",
        "other user": f"{inside}/users/{ada}",
        "all users": f"{inside}/users",
        "tokens of others": f"{inside}/users/{ada}/tokens",
        "metrics": f"http://hub.{hub.namespace}:8081/hub/metrics",
        "routes": f"http://proxy-api.{hub.namespace}:8001/api/routes",
    }
    code = _ASK.format(questions=questions)
    assert json.loads(in_pod(hub, pod, code)) == {
        "self": 200,
        "own server": 200,
        "other server": 403,
        "other user": 404,
        "all users": 403,
        "tokens of others": 403,
        "metrics": 403,
        "routes": 403,
    }
    account = f"--as=system:serviceaccount:{pod['metadata']['namespace']}:notebook"
    for verb, resource, where in (
        ("get", "secrets", hub.namespace),
        ("get", "persistentvolumeclaims", hub.namespace),
        ("create", "pods/exec", hub.namespace),
        ("create", "pods", pod["metadata"]["namespace"]),
        ("get", "pods", tenants.namespace_name(ada)),
    ):
        with pytest.raises(Refused):
            hub.cluster.kubectl("auth", "can-i", verb, resource, "-n", where, account)
    hub.cluster.kubectl("auth", "can-i", "get", "pods", "-n", pod["metadata"]["namespace"], account)


# Death of the hub


def kill(hub, how):
    hub.kill_pod() if how == "pod" else hub.kill_process()


def answers(hub, person):
    """Whether somebody's server is reached through the proxy."""
    return hubpod.client(hub.url).get(f"/user/{person}/api").status_code == 200


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
    # None lost: each has its server, which answers; none doubled: no pod without a server.
    assert [len(hub.pods(name)) for name in crowd] == [1] * CROWD
    for name in crowd:
        until(lambda name=name: answers(hub, name), f"{name} is reached")


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
    # Nobody asks again: what was accepted comes.
    hub.wait_ready(ada)
    assert len(hub.pods(ada)) == 1
    until(lambda: answers(hub, ada), "the proxy knows the way")


@pytest.mark.parametrize("how", ["pod", "process"])
def test_the_hub_dies_before_and_after_a_spawn_and_in_its_stop(hub, ada, how):
    session = hub.login(ada)
    kill(hub, how)
    hub.wait_until_it_answers()
    assert is_logged_in(session, ada)
    hub.start(ada)
    hub.wait_ready(ada)
    (before,) = hub.pods(ada)
    kill(hub, how)
    # The proxy knows the way without the hub.
    assert answers(hub, ada)
    hub.wait_until_it_answers()
    hub.wait_ready(ada)
    (after,) = hub.pods(ada)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert answers(hub, ada)
    with ThreadPoolExecutor(1) as aside:
        aside.submit(hub.api.delete, f"/users/{ada}/server", timeout=10)  # answers when the pod is gone; not this time
        until(lambda: all("deletionTimestamp" in pod["metadata"] for pod in hub.pods(ada)), "the pod is to go")
        hub.kill_pod()  # a process that ends three times in a minute is not started again for most of the next
    hub.wait_until_it_answers()
    until(lambda: not hub.pods(ada) and not hub.server(ada), "neither pod nor server is left")


# Mistakes of the administrator


def test_a_typo_in_the_values_is_one_line(hub):
    good = hub.values
    wrong = json.loads(json.dumps(good))
    wrong["custom"]["cnai"]["catalog"]["flavor"][1]["prize_per_hour"] = 1
    try:
        hub.values = wrong
        hub.apply()
        until(lambda: "prize_per_hour" in hub.log(), "the hub says what is wrong")
        (line,) = [line for line in hub.log().splitlines() if line.strip()]
        assert line.startswith(
            "cnai: custom.cnai.catalog.flavor[1].prize_per_hour is unknown; did you mean 'price_per_hour'?"
        )
    finally:
        hub.values = good
        hub.apply()
        hub.wait_until_it_answers()
