"""Servers on a real cluster: a hub with only its account's rights, and all ways in which a start can fail."""

from __future__ import annotations

import html
import json
import os
import re
import secrets
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import tenancy
from onenode.place import NODE_IP
from realcluster import pod as plain_pod

from cnai import quantities

pytest.importorskip("kubespawner", reason="the extra `kubernetes` is not installed")

from clusterhub import ClusterHub

from cnai import catalog
from cnai_hub import tenants
from cnai_hub.tenants import names
from hub.realhub import free_port, until, xsrf

GPU = "nvidia.com/gpu"


def flavors(product):
    small = {"cpu": 1, "memory_gib": 2}
    kind = {"gpu_product": product, "groups": ["research"], "price_per_hour": 3}
    return [
        {"name": "cpu", "title": "CPU", "default": True, **small},
        {"name": "wide", "title": "Wide", "cpu": 2, "memory_gib": 4, "price_per_hour": 0.1},
        {"name": "h100", "title": "One H100", "gpus": 1, **small, **kind, "price_per_hour": 1},
        {"name": "h100x4", "title": "Four H100", "gpus": 4, **small, **kind, "max_hours": 8},
        {"name": "h100x64", "title": "64 H100", "gpus": 64, **small, **kind},
    ]


def images(reference):
    gone = reference.partition("@")[0].rpartition("/")[0] + "/gone@sha256:" + "0" * 64
    return [
        {"name": "torch", "title": "PyTorch", "reference": reference, "default": True},
        {"name": "gone", "title": "Gone", "reference": gone},
        {"name": "secret", "title": "Secret", "reference": reference, "groups": ["staff"]},
    ]


@pytest.fixture(scope="module")
def house(cluster, images_of_code, tmp_path_factory):
    """A hub; `ada` may have GPUs, `bob` may not, both create; `eve` only opens apps."""
    if cluster.place is None:
        pytest.skip("the hub runs on this machine, where pods of another cluster don't reach it")
    folder = tmp_path_factory.mktemp("clusterhub")
    suffix = secrets.token_hex(3)
    settings = tenants.Cluster(hub_namespace=f"cnai-hub-{suffix}", machines=4)
    ada, bob, eve, zoe = (f"{name}-{suffix}" for name in ("ada", "bob", "eve", "zoe"))
    with tenancy.administered(cluster, settings, suffix):
        hub_account = {"name": settings.hub_account, "namespace": settings.hub_namespace}
        cluster.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": hub_account})
        account = tenancy.account(cluster, folder, settings.hub_namespace, settings.hub_account)
        tenancy.until(lambda: account.kubectl("get", "nodes"))
        given = {
            "catalog": {"image": images(images_of_code), "flavor": flavors(product(cluster))},
            "cluster": {"hub_namespace": settings.hub_namespace, "machines": 4},
            "cpu_share": 0.05,
            "memory_share": 0.1,
            "patience_seconds": 3,
            "apps_service": f"http://127.0.0.1:{free_port()}",
        }
        groups = {"creators": [ada, bob, zoe], "research": [ada]}
        hub = ClusterHub(folder / "cnai", given, groups, account.kubeconfig, NODE_IP)
        try:
            hub.start()
            yield SimpleNamespace(
                hub=hub, cluster=cluster, account=account, ada=ada, bob=bob, eve=eve, zoe=zoe, folder=folder,
                apis={user: hub.api(user) for user in (ada, bob, zoe)}, given=given, groups=groups,
            )  # fmt: skip
        finally:
            print(hub.log.read_text(errors="replace")[-20000:])
            hub.stop()
            for user in (ada, bob, eve, zoe):
                cluster.kubectl("delete", "namespace", names.namespace_name(user), "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="module")
def images_of_code(images):
    return images["notebook"]


def product(cluster):
    labels = cluster.get("nodes")["items"][0]["metadata"]["labels"]
    return labels.get(f"{GPU}.product", "")


@pytest.fixture
def stopped(house):
    """Stop everybody's server after the test."""
    yield
    stop_all(house)


def stop_all(house):
    for user in house.apis:
        for name in servers(house, user):
            stop(house, user, name)


def servers(house, user):
    return house.apis[user].get(f"users/{user}").json()["servers"]


def stop(house, user, server):
    path = f"users/{user}/servers/{server}" if server else f"users/{user}/server"
    until(lambda: house.apis[user].delete(path).status_code in (202, 204, 404), "the server may be stopped")
    until(lambda: not servers(house, user).get(server, {}).get("pending"), "the server has stopped")


def start(house, user, server="", **options):
    """Start a server and return its pod."""
    answer = house.hub.start_server(house.apis[user], user, server, **options)
    assert answer.status_code in (201, 202), answer.text
    said = house.hub.progress(house.apis[user], user, server)
    assert said[-1].get("ready"), said
    return one_pod(house, user, server)


def one_pod(house, user, server=""):
    found = house.cluster.get("pods", "-n", names.namespace_name(user), "-l", "component=singleuser-server")["items"]
    (mine,) = [pod for pod in found if pod["metadata"]["labels"]["hub.jupyter.org/servername"] == server]
    return mine


def pods_of(house, user):
    return house.cluster.get("pods", "-n", names.namespace_name(user))["items"]


def failure(house, user, server="", **options):
    """Return all messages of a start that must fail."""
    answer = house.hub.start_server(house.apis[user], user, server, **options)
    if answer.status_code >= 400:
        assert answer.status_code in (400, 503), answer.text
        return [answer.json()["message"]]
    said = house.hub.progress(house.apis[user], user, server)
    assert said[-1].get("failed"), said
    return [each["message"] for each in said]


def execute(house, user, *command):
    pod = one_pod(house, user)["metadata"]["name"]
    return house.cluster.kubectl("exec", "-n", names.namespace_name(user), pod, "--", *command)


@pytest.fixture(scope="class")
def desk(house):
    """The pod of ada's server with a GPU."""
    yield start(house, house.ada, image="torch", flavor="h100")
    stop_all(house)


def gets_what_it_says(house, pod, limits, max_hours=None):
    (container,) = pod["spec"]["containers"]
    resources = {"cpu": "1", "memory": "2147483648", **({GPU: str(limits)} if limits else {})}
    asked = {"cpu": "50m", "memory": "214748364", **({GPU: str(limits)} if limits else {})}
    assert {key: _plain(value) for key, value in container["resources"]["limits"].items()} == {
        key: _plain(value) for key, value in resources.items()
    }
    assert {key: _plain(value) for key, value in container["resources"]["requests"].items()} == {
        key: _plain(value) for key, value in asked.items()
    }
    assert pod["spec"].get("nodeSelector", {}) == ({f"{GPU}.product": product(house.cluster)} if limits else {})
    assert pod["metadata"]["annotations"].get("cnai.dev/max-hours") == max_hours


def _plain(value):
    return quantities.quantity(value)


class TestAServer:
    def test_it_has_the_flavor(self, house, desk):
        gets_what_it_says(house, desk, limits=1)

    def test_a_notebook_finds_what_training_needs(self, house, desk):
        script = "import json, os; print(json.dumps(dict(os.environ)))"
        found = json.loads(execute(house, house.ada, "python", "-c", script))
        shelf = catalog.parse(json.loads(found.pop("CNAI_CATALOG")), "")
        assert [flavor.name for flavor in shelf.flavors] == ["cpu", "wide", "h100", "h100x4", "h100x64"]
        assert [image.name for image in shelf.images] == ["torch", "gone"]
        expected = {
            "HOME": "/home/cnai",
            "CNAI_BACKEND": "kubernetes",
            "CNAI_NAMESPACE": names.namespace_name(house.ada),
            "CNAI_IMAGE": "torch",
            "CNAI_IMAGE_REFERENCE": house.given["catalog"]["image"][0]["reference"],
            "CNAI_FLAVOR": "h100",
            "CNAI_HOME_CLAIM": "home",
            "CNAI_HUB_URL": f"http://proxy-public.{house.given['cluster']['hub_namespace']}/",
        }
        assert {key: found.get(key) for key in expected} == expected
        # It isn't root and can't become root, has a token of its account, and has shared memory.
        assert execute(house, house.ada, "id", "-u", "-n").strip() == "cnai"
        assert execute(house, house.ada, "cat", "/var/run/secrets/kubernetes.io/serviceaccount/namespace") == (
            names.namespace_name(house.ada)
        )
        assert "tmpfs" in execute(house, house.ada, "df", "/dev/shm")
        assert "01-first-run.ipynb" in execute(house, house.ada, "ls", "/home/cnai/notebooks")

    def test_it_opens_for_its_owner_and_nobody_else(self, house, desk):
        lab = f"/user/{house.ada}/lab"
        assert house.hub.login(house.ada).get(lab).status_code == 200
        assert house.hub.login(house.bob).get(lab).status_code in (403, 404)

    def test_all_servers_of_a_person_share_a_home(self, house, desk):
        execute(house, house.ada, "sh", "-c", "echo hello > /home/cnai/mine.txt")
        start(house, house.ada, "second", image="torch", flavor="wide")
        second = one_pod(house, house.ada, "second")["metadata"]["name"]
        where = names.namespace_name(house.ada)
        assert house.cluster.kubectl("exec", "-n", where, second, "--", "cat", "/home/cnai/mine.txt") == "hello\n"
        stop(house, house.ada, "second")

    def test_a_quota_that_is_used_up_is_named(self, house, desk):
        where = names.namespace_name(house.ada)
        hard = house.cluster.get("resourcequota", "tenant", "-n", where)["spec"]["hard"]["limits.memory"]
        memory = f"{quantities.quantity(hard) / 2**30 - 4:g}Gi"
        other = {"limits": {"memory": memory}, "requests": {"cpu": "10m", "memory": "8Mi"}}
        house.cluster.create(plain_pod("other", house.cluster.base, ["sleep", "1000"], resources=other), where)
        try:
            said = failure(house, house.ada, "second", flavor="wide")
            assert "the quota allows" in said[-1]
            assert "GiB of memory in use" in said[-1]
        finally:
            house.cluster.kubectl("delete", "pod", "other", "-n", where, "--wait=false", "--ignore-not-found")


@pytest.mark.parametrize(("flavor", "limits", "max_hours"), [("cpu", 0, None), ("h100x4", 4, "8")])
def test_other_flavors_get_what_they_say(house, stopped, flavor, limits, max_hours):
    gets_what_it_says(house, start(house, house.ada, image="torch", flavor=flavor), limits, max_hours)


REFUSED = [
    ({"image": "evil"}, "unknown image 'evil' (allowed: gone, torch)"),
    ({"image": "secret"}, "image 'secret' is for members of staff only; you may start: torch, gone"),
    ({"flavor": "h100"}, "flavor 'h100' is for members of research only; you may start: cpu, wide"),
    ({"flavor": "huge"}, "unknown flavor 'huge'"),
    ({"cmd": "sh"}, "unknown option 'cmd'; allowed: image, flavor"),
    ({"profile": "x"}, "unknown option 'profile'; allowed: image, flavor"),
]


@pytest.mark.parametrize(("options", "sentence"), REFUSED)
def test_rest_and_form_refuse_in_a_sentence_and_forget(house, options, sentence):
    answer = house.hub.start_server(house.apis[house.bob], house.bob, **options)
    assert answer.status_code == 400
    assert sentence in answer.json()["message"]
    client = house.hub.login(house.bob)
    page = client.post(f"/hub/spawn/{house.bob}", params={"_xsrf": xsrf(client)}, data=options)
    assert page.status_code == 400
    assert sentence in html.unescape(page.text)
    stored = house.apis[house.bob].get(f"users/{house.bob}?include_stopped_servers").json()["servers"].get("", {})
    assert not stored.get("user_options")


@pytest.mark.parametrize("options", [{"flavor": ["cpu"]}, {"image": None, "flavor": 3}, {"flavor": {"a": {}}}])
def test_options_of_any_shape_are_refused(house, options):
    answer = house.hub.start_server(house.apis[house.bob], house.bob, **options)
    assert answer.status_code == 400
    assert "must be the name of one" in answer.json()["message"]


def test_the_form_shows_what_a_person_may_start_with_price_and_free_gpus(house):
    page = html.unescape(house.hub.login(house.ada).get(f"/hub/spawn/{house.ada}").text)
    for text in ("3 per hour", "GPUs free now", 'value="h100x4"', 'value="torch"'):
        assert text in page
    page = house.hub.login(house.bob).get(f"/hub/spawn/{house.bob}").text
    assert "h100" not in page
    assert "secret" not in page


def test_who_is_no_creator_has_no_server(house):
    client = house.hub.login(house.eve)
    write = {"headers": {"X-XSRFToken": xsrf(client)}}
    assert client.get(f"/hub/spawn/{house.eve}").status_code == 403
    assert client.post(f"/hub/api/users/{house.eve}/server", json={}, **write).status_code == 403
    assert client.get("/hub/").url.path == "/services/apps/"


def test_a_shortage_is_explained_with_what_fits_one_click_away(house, stopped, gpu_count):
    said = failure(house, house.ada, flavor="h100x64")
    sentence = r"no node has 64 free \w+ GPUs; \d+ (is|are) free"
    assert any(re.search(sentence, text, re.IGNORECASE) for text in said), said
    assert re.search(sentence + r".*; the largest flavor that fits is (Four|One) H100", said[-1], re.IGNORECASE)
    client = house.hub.login(house.ada)
    page = client.get(f"/hub/spawn-pending/{house.ada}")
    assert page.status_code == 503
    assert re.search(sentence, page.text, re.IGNORECASE)
    fields = dict(re.findall(r'<input type="hidden" name="(image|flavor)" value="([^"]+)">', page.text))
    assert fields["flavor"] in {"h100", "h100x4"}
    assert fields["image"] == "torch"
    assert not pods_of(house, house.ada)
    action = html.unescape(re.search(r'<form[^>]* action="([^"]+)"', page.text)[1])
    assert client.post(action, data=fields).status_code == 200
    until(lambda: servers(house, house.ada).get("", {}).get("ready"), "the alternative has started")
    assert servers(house, house.ada)[""]["user_options"] == fields


def test_an_image_that_cannot_be_pulled_ends_the_start_at_once(house, stopped):
    said = failure(house, house.ada, image="gone", flavor="cpu")
    assert "the image can't be pulled: " in said[-1]
    assert "doesn't exist in its registry" in said[-1]
    assert not pods_of(house, house.ada)


def test_a_namespace_of_somebody_else_is_refused_and_left_alone(house):
    name = names.namespace_name(house.zoe)
    house.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    (said,) = failure(house, house.zoe, flavor="cpu")
    assert said == (
        f"namespace '{name}' was not created by cnai, so '{house.zoe}' can't use it;"
        " ask your administrator to delete it"
    )
    for kind in ("pods", "resourcequotas", "networkpolicies", "rolebindings", "persistentvolumeclaims"):
        assert house.cluster.get(kind, "-n", name)["items"] == []


def test_max_hours_end_a_server(house, stopped):
    pod = start(house, house.ada, flavor="cpu")
    where, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    house.cluster.kubectl("annotate", "pod", name, "-n", where, "cnai.dev/max-hours=0.0001", "--overwrite")
    until(lambda: "" not in servers(house, house.ada), "the hub has stopped the server")
    assert not pods_of(house, house.ada)


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        ("nonsense", "Kubernetes doesn't accept the hub's token (expired?); ask your administrator to restart the hub"),
        ("", "may not list pods; ask your administrator to apply `python -m cnai_hub.tenants` again"),
    ],
)
def test_a_hub_that_may_not_says_so(house, tmp_path, token, sentence):
    """A hub without a valid token, or with an account that has no rights."""
    where = house.given["cluster"]["hub_namespace"]
    kubeconfig = tmp_path / "kubeconfig.json"
    config = json.loads(Path(house.account.kubeconfig).read_text())
    config["users"][0]["user"]["token"] = (
        token or house.cluster.kubectl("create", "token", "default", "-n", where).strip()
    )
    kubeconfig.write_text(json.dumps(config))
    given = {**house.given, "apps_service": f"http://127.0.0.1:{free_port()}"}
    hub = ClusterHub(tmp_path / "cnai", given, house.groups, str(kubeconfig), NODE_IP)
    try:
        hub.start()
        api = hub.api(house.bob)
        for _ in range(2):
            answer = hub.start_server(api, house.bob, flavor="cpu")
            assert sentence in answer.json()["message"]
            assert answer.status_code in (400, 503)
        assert hub.login(house.bob).get(f"/hub/spawn/{house.bob}").status_code == 200
    finally:
        hub.stop()


@pytest.fixture
def tiny_home(house, own_cluster, tmp_path):
    """A user's home is a full volume of 4 MiB."""
    folder = tmp_path / "volume"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,uid=1000,gid=100", "tmpfs", str(folder)], check=True)
    where = names.namespace_name(house.bob)
    name = f"tiny-{secrets.token_hex(3)}"
    common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = {
        **common,
        "capacity": {"storage": "4Mi"},
        "hostPath": {"path": str(folder)},
        "claimRef": {"namespace": where, "name": "home"},
        "persistentVolumeReclaimPolicy": "Retain",
    }
    claim = {**common, "volumeName": name, "resources": {"requests": {"storage": "4Mi"}}}
    failure(house, house.bob, image="gone", flavor="cpu")  # makes the namespace
    house.cluster.kubectl("delete", "pvc", "home", "-n", where, "--wait=true")
    house.cluster.create({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume})
    house.cluster.create(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "home"}, "spec": claim}, where
    )
    house.cluster.wait("pvc/home", "jsonpath={.status.phase}=Bound", where)
    with pytest.raises(OSError, match="No space left"):
        (folder / "large").write_bytes(b"x" * (5 << 20))
    os.chown(folder / "large", 1000, 100)
    yield folder
    stop(house, house.bob, "")
    house.cluster.kubectl("delete", "pvc", "home", "-n", where, "--wait=true")
    house.cluster.kubectl("delete", "pv", name, "--wait=false")
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_home_lets_its_owner_in_to_tidy_up(house, stopped, tiny_home):
    start(house, house.bob, flavor="cpu")
    client = house.hub.login(house.bob)
    page = client.get(f"/user/{house.bob}/")
    assert page.status_code == 200
    assert "YOUR%20HOME%20IS%20FULL.md" in str(page.url)
    assert "No space left on device" in execute(house, house.bob, "cat", "/tmp/jupyter/root/YOUR HOME IS FULL.md")
    # A kernel starts, and people can delete files as usual.
    api = {"headers": {"X-XSRFToken": client.cookies.get("_xsrf", path=f"/user/{house.bob}/") or ""}}
    made = client.post(f"/user/{house.bob}/api/kernels", json={}, **api)
    assert made.status_code == 201, made.text
    gone = client.delete(f"/user/{house.bob}/api/contents/home/large", **api)
    assert gone.status_code == 204, gone.text
    assert not (tiny_home / "large").exists()
    stop(house, house.bob, "")
    start(house, house.bob, flavor="cpu")
    assert "FULL" not in str(house.hub.login(house.bob).get(f"/user/{house.bob}/").url)


def test_without_a_class_of_storage_the_administrator_is_asked(house, stopped):
    where = names.namespace_name(house.bob)
    failure(house, house.bob, image="gone", flavor="cpu")  # makes the namespace
    house.cluster.kubectl("delete", "pvc", "home", "-n", where, "--wait=true")
    # On a cluster without a default storage class, a claim that names no class stays unbound.
    spec = {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    house.cluster.create(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "home"}, "spec": spec}, where
    )
    try:
        said = failure(house, house.bob, flavor="cpu")
        assert "the cluster has no default storage class for home folders" in said[-1]
        assert not pods_of(house, house.bob)
    finally:
        house.cluster.kubectl("delete", "pvc", "home", "-n", where, "--wait=true")
