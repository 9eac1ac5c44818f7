"""App pods: determined by name and release, and without the rights of notebook servers."""

from __future__ import annotations

import asyncio
import json

import pytest

from cnai.errors import HubError
from cnai_hub.apps.releases import App, Release, Store
from cnai_hub.kubernetes.app_pods import HOME, app_pod

IMAGE = "registry.cnai.test/cnai/notebook@sha256:" + "a" * 64


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Publish releases of ada's `demo`, one after the other."""
    monkeypatch.setenv("CNAI_HOME", str(tmp_path))
    store = Store(tmp_path / "apps")

    def publish(number, **release):
        with store.staging("ada", "demo") as stage:
            (stage / "files").mkdir()
            app = App(owner="ada", slug="demo", title="Demo", created=1.0, published=float(number), current=number)
            store.commit(stage, app, Release(number=number, notebook="a.ipynb", author="ada", created=1.0, **release))

    return publish


def test_a_pod_is_that_of_the_current_release(published):
    published(1, image="torch", reference="old")
    published(2, image="torch", reference=IMAGE, flavor="small")
    pod = app_pod("app-demo", "ada")
    assert (pod.image, pod.image_name, pod.flavor) == (IMAGE, "torch", "small")
    assert pod.labels == {"cnai.dev/role": "app"}
    assert pod.command == ("python", "-m", "cnai_hub.apps.server.fetch")


@pytest.mark.parametrize(("server", "owner"), [("app-other", "ada"), ("app-demo", "bob"), ("demo", "ada"), ("", "ada")])
def test_what_is_not_published_has_no_pod(published, server, owner):
    published(1, image="torch", reference=IMAGE)
    assert app_pod(server, owner) is None


def test_a_release_of_another_place_is_refused(published):
    published(1)
    with pytest.raises(HubError, match="app 'demo' was published without a container image; publish it again"):
        app_pod("app-demo", "ada")


def test_a_pod_has_nothing_of_its_author(published):
    published(1, image="torch", reference=IMAGE)
    pod = app_pod("app-demo", "ada")
    traits = pod.traits()
    assert traits["service_account"] is None
    assert (traits["automount_service_account_token"], traits["storage_pvc_ensure"]) == (False, False)
    assert [set(volume) for volume in traits["volumes"]] == [{"name", "emptyDir"}] * 3
    assert all("sizeLimit" in volume["emptyDir"] for volume in traits["volumes"])
    assert [mount["mountPath"] for mount in traits["volume_mounts"]] == [HOME, "/tmp", "/dev/shm"]
    assert (traits["init_containers"], traits["extra_containers"], traits["lifecycle_hooks"]) == ([], [], {})
    assert pod.environment["CNAI_BACKEND"] == "local"
    assert not [name for name in pod.environment if "TOKEN" in name or name.startswith("KUBE")]


def test_the_pod_that_kubespawner_makes_of_it(published, monkeypatch, tmp_path):
    """An app's pod has none of the traits of notebook servers."""
    pytest.importorskip("kubespawner", reason="the extra `kubernetes` is not installed")
    published(1, image="torch", reference=IMAGE)
    made = asyncio.run(manifest(app_pod("app-demo", "ada").traits(), tmp_path, monkeypatch))
    spec, (container,) = made["spec"], made["spec"]["containers"]
    assert (spec["automountServiceAccountToken"], spec.get("serviceAccountName")) == (False, None)
    assert (spec["enableServiceLinks"], spec["restartPolicy"]) == (False, "Never")
    assert "initContainers" not in spec
    assert [set(volume) for volume in spec["volumes"]] == [{"name", "emptyDir"}] * 3
    assert container["image"] == IMAGE
    assert container["args"] == ["python", "-m", "cnai_hub.apps.server.fetch"]
    assert container["securityContext"] == {
        "runAsUser": 1000,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


async def manifest(traits, folder, monkeypatch):
    """Return the app pod of a spawner that was configured for a notebook server before."""
    from kubernetes_asyncio.client import ApiClient
    from kubespawner import KubeSpawner

    config = {"apiVersion": "v1", "kind": "Config", "current-context": "x", "users": [{"name": "x", "user": {}}]}
    config |= {"clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:9"}}]}
    config |= {"contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]}
    (folder / "kubeconfig").write_text(json.dumps(config))
    where = "kubernetes_asyncio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"  # read when it is imported
    monkeypatch.setattr(where, str(folder / "kubeconfig"))
    spawner = KubeSpawner(_mock=True, namespace="cnai-ada")
    home = {"name": "home", "persistentVolumeClaim": {"claimName": "home"}}
    of_notebooks = {
        "uid": 1000,
        "service_account": "notebook",
        "automount_service_account_token": True,
        "volumes": [home],
        "volume_mounts": [{"name": "home", "mountPath": HOME}],
        "extra_containers": [{"name": "more", "image": "x"}],
    }
    for name, value in {**of_notebooks, **traits}.items():
        setattr(spawner, name, value)
    return ApiClient().sanitize_for_serialization(await spawner.get_pod_manifest())
