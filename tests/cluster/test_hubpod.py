"""The hub in its pod on a real cluster: the servers that users may start, and the rights of its account."""

from __future__ import annotations

import json
import re

import hubpod
import pytest
from hubpod import SMALL, until
from realcluster import Refused

from cnai_hub import tenants

FLAVORS = {flavor["name"]: flavor for flavor in SMALL["custom"]["cnai"]["catalog"]["flavor"]}
IMAGES = ["torch", "same"]


@pytest.fixture(scope="module")
def hub(cluster, images):
    offered = [{"name": name, "title": name, "default": name == "torch"} for name in IMAGES]
    more = {"catalog": {"image": offered}, "references": {"same": images["notebook"]}}
    with hubpod.installed(cluster, images, SMALL, {"custom": {"cnai": more}}) as hub:
        yield hub


@pytest.fixture
def ada(hub):
    with hub.visited_by("ada") as name:
        yield name


@pytest.fixture
def grace(hub):
    with hub.visited_by("grace") as name:
        yield name


def in_pod(hub, pod, code, container="notebook"):
    """Run a program in a pod, and return its output."""
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


# Rights of users


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
    assert hub.leads_to(ada)


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
    # Control: the same person may start this one.
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


# Rights of a server's tokens

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
