"""The Kubernetes backend against an API server at the wire: what is checked, claimed, created and refused."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

import cnai
from backends.conftest import OFFERED, REFERENCE
from cnai.backends import credentials
from cnai.backends.kubernetes import fleet
from cnai.backends.kubernetes.backend import KubernetesBackend, claim
from cnai.catalog import Catalog
from cnai.engine.records import Record, Room
from cnai.engine.store import Store
from cnai.errors import CnaiError, UnknownName, UsageError
from cnai.events import State
from cnai.paths import engine_dir, store_root
from cnai.spec import Ranks, RunSpec, Target
from run.waiting import until

FIT = Target("function", "fit")


def _spec(ranks=1, **more):
    return RunSpec(target=FIT, ranks=Ranks(ranks, ranks), **more)


def _room(flavor="small", image=REFERENCE, nodes=1):
    return Room(flavor=flavor, image_reference=image, nodes=nodes)


def test_what_a_run_needs(server):
    assert KubernetesBackend().check(_spec(5, flavor="gpu")) == Room(
        cpu=4, gpus=2, nodes=3, ranks_per_node=2, flavor="gpu", image_reference=REFERENCE
    )
    own = KubernetesBackend().check(_spec(16))
    assert (own.flavor, own.nodes, own.ranks_per_node) == ("small", 1, 16)
    assert KubernetesBackend().check(_spec(2, nodes=2)).nodes == 2


def test_a_run_and_a_server_that_name_no_flavor_have_the_same(server, monkeypatch):
    small, gpu = OFFERED.flavors
    monkeypatch.setenv("CNAI_CATALOG", Catalog(OFFERED.images, (gpu, small)).to_json())
    monkeypatch.delenv("CNAI_FLAVOR")
    assert (
        KubernetesBackend().check(_spec()).flavor
        == Catalog(OFFERED.images, (gpu, small)).default_flavor().name
        == "small"
    )


@pytest.mark.parametrize(
    ("spec", "error", "said"),
    [
        ({"flavor": "gqu"}, UnknownName, "unknown flavor 'gqu'; did you mean 'gpu'"),
        ({"image": "touch"}, UnknownName, "unknown image 'touch'; did you mean 'torch'"),
        ({"image": "bare"}, UsageError, "image 'bare' has no reference in the catalog"),
        ({"ranks": 5, "nodes": 2, "flavor": "gpu"}, UsageError, "5 ranks need 3 nodes of flavor gpu .*--nodes 2"),
    ],
)
def test_what_can_not_be(server, spec, error, said):
    with pytest.raises(error, match=said):
        KubernetesBackend().check(_spec(**spec))
    assert server.asked == []


def test_an_engine_is_made_once_and_its_credentials_come_first(server):
    seen = []

    def read(manifest):
        file = engine_dir() / manifest["metadata"]["name"] / "engine.json"
        seen.append((oct(file.stat().st_mode & 0o777), json.loads(file.read_text())))

    server.on_create = read
    assert fleet.ensure("small-1", _room(nodes=2), 2)
    ((mode, status),) = seen
    assert mode == "0o600"
    assert status["address"] == "tls://small-1-scheduler.cnai-ada:8786"
    assert set(status["tls"]) == {"ca", "key", "cert"}
    assert server.clusters["small-1"]["spec"]["worker"]["replicas"] == 2
    assert not fleet.ensure("small-1", _room(nodes=2), 2)
    assert len(seen) == 1
    fleet.resize("small-1", 4)
    assert fleet.node_count("small-1") == 4
    fleet.release("small-1")
    assert not fleet.standing("small-1").exists


@pytest.mark.parametrize("kind", ["services", "deployments"])
def test_an_engine_is_made_again_when_nothing_is_left_of_it(server, kind):
    fleet.ensure("small-1", _room(), 1)
    fleet.release("small-1")
    labels = {"dask.org/cluster-name": "small-1"}
    left = {"metadata": {"name": "small-1-scheduler", "labels": labels}, "spec": {"selector": {}, "template": {}}}
    getattr(server, kind).append(left)
    created = []
    server.on_create = created.append
    with ThreadPoolExecutor(1) as aside:
        made = aside.submit(fleet.ensure, "small-1", _room(), 1)
        server.asked.clear()
        until(lambda: sum(asked.endswith(f"/{kind}") for asked in server.asked) > 1, "it looks again")
        assert created == []
        getattr(server, kind).clear()
        assert made.result(60)
    assert len(created) == 1


def test_an_idle_engine_is_claimed(server):
    server.add(fleet.manifest("small-1", _room(), 1))
    with claim(_room()) as engine:
        assert engine == "small-1"


def _deleting(server):
    server.clusters["small-1"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"


def _busy(server):
    record = Record(engine="small-1")
    Store(store_root()).create(_spec(), record, b"", b"")


def _long_idle(server):
    server.add(server.clusters["small-1"], age_seconds=55)


def _stopped(server):
    credentials.mark_stopped("small-1")


@pytest.mark.parametrize("spoil", [_deleting, _busy, _long_idle, _stopped])
def test_an_engine_that_must_not_be_claimed(server, spoil):
    server.add(fleet.manifest("small-1", _room(), 1))
    spoil(server)
    with claim(_room()) as engine:
        assert engine != "small-1"
        assert engine.startswith("small-")


@pytest.mark.parametrize("room", [_room(flavor="gpu"), _room(image="registry.example/other")])
def test_an_engine_of_another_kind_is_not_claimed(server, room):
    server.add(fleet.manifest("small-1", _room(), 1))
    with claim(room) as engine:
        assert engine != "small-1"


def test_a_run_that_has_ended_frees_its_engine(server):
    server.add(fleet.manifest("small-1", _room(), 1), age_seconds=1000)
    folder = Store(store_root()).create(_spec(), Record(engine="small-1"), b"", b"")
    folder.write_status(replace(folder.status(), state=State.SUCCEEDED))
    with claim(_room()) as engine:
        assert engine == "small-1"
    (told,) = KubernetesBackend().status()
    assert told.idle_seconds < 60
    os.utime(folder.path / "state.json", (time.time() - 55, time.time() - 55))
    with claim(_room()) as engine:
        assert engine != "small-1"


def _status(message, code):
    return code, json.dumps({"kind": "Status", "status": "Failure", "message": message, "code": code})


REFUSALS = {
    "quota": (
        _status(
            'daskclusters.kubernetes.dask.org "x" is forbidden: exceeded quota: tenant, requested:'
            " count/daskclusters.kubernetes.dask.org=1, used: count/daskclusters.kubernetes.dask.org=3, limited:"
            " count/daskclusters.kubernetes.dask.org=3",
            403,
        ),
        "the quota allows 3 Dask clusters; 3 Dask clusters in use",
    ),
    "policy": (
        _status(
            'daskclusters.kubernetes.dask.org "x" is forbidden: ValidatingAdmissionPolicy'
            " 'cnai-daskcluster-gpus' with binding 'cnai-daskcluster-gpus' denied request: cnai: the cluster asks for 9"
            " GPUs; the quota is 4",
            403,
        ),
        "the cluster asks for 9 GPUs; the quota is 4",
    ),
    "rights": (
        _status(
            'daskclusters.kubernetes.dask.org is forbidden: User "system:serviceaccount:cnai-ada:notebook" cannot'
            ' create resource "daskclusters" in API group "kubernetes.dask.org" in the namespace "cnai-ada"',
            403,
        ),
        "may not create daskclusters .*ask your administrator",
    ),
    "token": (_status("Unauthorized", 401), "rejects the account's token"),
    "overloaded": ((503, "later"), "the API server can't answer now"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_is_one_line_and_leaves_nothing(server, refusal):
    server.refusal, said = REFUSALS[refusal]
    with pytest.raises(CnaiError, match=said) as refused:
        cnai.train(print)
    assert "\n" not in str(refused.value)
    assert list(store_root().iterdir()) == []
    assert [path.name for path in engine_dir().iterdir()] == ["claims"]
    assert server.clusters == {}


def test_a_cluster_without_the_operators_definitions(server):
    server.missing_kind = True
    with pytest.raises(CnaiError, match="ask your administrator to apply"):
        cnai.train(print)
    assert not store_root().exists()


def test_an_api_server_that_is_away(server, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(server.kubeconfig().replace(str(server.server_address[1]), "9"))
    monkeypatch.setenv("KUBECONFIG", str(elsewhere))
    with pytest.raises(CnaiError, match="the API server does not answer"):
        cnai.train(print)


def test_no_cluster_at_all(home, monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    monkeypatch.setenv("CNAI_IMAGE_REFERENCE", REFERENCE)
    with pytest.raises(UsageError, match=r"no Kubernetes here: .*--backend local"):
        cnai.train(print, backend="kubernetes", flavor="small")


def test_a_dry_run_has_the_manifest(server):
    planned = cnai.run.plan(print, flavor="gpu", ranks=3)
    assert planned.manifest["spec"]["worker"]["replicas"] == 2
    assert server.asked == []


def test_engines_are_stopped_by_flavor(server):
    for name, flavor in (("small-1", "small"), ("gpu-1", "gpu")):
        server.add(fleet.manifest(name, _room(flavor), 1))
    assert KubernetesBackend().stop("gpu")
    assert set(server.clusters) == {"small-1"}
    assert credentials.was_stopped("gpu-1")
    assert KubernetesBackend().stop()
    assert not KubernetesBackend().stop()


def test_an_engine_ahead_of_its_run(server):
    (told,) = cnai.cluster.start("gpu", 2)
    assert (told.flavor, told.nodes, told.wanted_nodes, told.gpus) == ("gpu", 0, 2, 0)
    assert "being created" in told.reason
    assert repr(told).startswith(f"{told.engine} (gpu) · 0 of 2 nodes · 0 GPUs · idle · ")
    (told,) = cnai.cluster.start("gpu", 3)
    assert told.wanted_nodes == 3
