"""App pods: fixed by name and release, and what they are without."""

from __future__ import annotations

import pytest

from cnai.errors import HubError
from cnai_hub.apps.pods import HOME, app_pod
from cnai_hub.apps.releases import App, Release, Store

IMAGE = "registry.cnai.test/cnai/notebook@sha256:" + "a" * 64


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Publish one release of ada's `demo` after the other."""
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
    assert pod.command == ("python", "-m", "cnai_hub.apps.fetch")


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
    assert [set(volume) for volume in traits["volumes"]] == [{"name", "emptyDir"}] * 2
    assert all("sizeLimit" in volume["emptyDir"] for volume in traits["volumes"])
    assert [mount["mountPath"] for mount in traits["volume_mounts"]] == [HOME, "/tmp"]
    assert (traits["init_containers"], traits["extra_containers"], traits["lifecycle_hooks"]) == ([], [], {})
    assert pod.environment["CNAI_BACKEND"] == "local"
    assert not [name for name in pod.environment if "TOKEN" in name or name.startswith("KUBE")]
