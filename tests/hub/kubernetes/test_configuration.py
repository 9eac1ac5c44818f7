"""Our configuration on top of the chart's: who wins, trait by trait, as the chart's own loader runs both."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace

import pytest
import yaml
import z2jh

pytest.importorskip("kubespawner", reason="the extra `kubernetes` is not installed")

from jupyterhub.app import JupyterHub

from cnai import paths
from cnai_hub.apps.releases import App, Release, Store
from cnai_hub.kubernetes.spawner import CatalogKubeSpawner
from hub.kubernetes import chart

REFERENCE = "registry.example/cnai/notebook@sha256:" + "0" * 64
OURS = yaml.safe_load((chart.ROOT / "helm-values.yaml").read_text())
URL = "http://proxy-public.cnai/"


@pytest.fixture(params=["imitated", "real"])
def configured(request, tmp_path, monkeypatch):
    """Return a function that creates the configuration of a release from an administrator's values."""
    own = chart.imitated() if request.param == "imitated" else chart.real(tmp_path)
    # The hub's own address, which becomes that of the apps service.
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "192.0.2.7")
    # A spawner reads the address of its cluster, but the tests send it no requests.
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda *_, **__: None)

    def configured(**values):
        etc = tmp_path / "etc"
        etc.mkdir()
        built = {"custom": {"cnai": {"references": {"torch": REFERENCE}}}}
        return chart.load(own, z2jh.merged(OURS, built, values), etc, monkeypatch)

    return configured


def settled(config, name=""):
    """Return the spawner of one of ada's servers, as configured when it creates its pod."""
    return asyncio.run(_settled(config, name))


async def _settled(config, name):
    user = SimpleNamespace(name="ada", id=1, url="/user/ada/", groups=[], escaped_name="ada", settings={})
    hub = SimpleNamespace(public_host="", url="", base_url="/hub/", api_url="http://hub.cnai:8081/hub/api")
    stored = SimpleNamespace(name=name, user_options={}, server=None)
    spawner = CatalogKubeSpawner(_mock=True, config=config, user=user, hub=hub, orm_spawner=stored)
    spawner.api_token = spawner.oauth_client_id = "x"
    spawner.apply_user_options(spawner, {})
    return spawner


def environment(config, name=""):
    """Return the environment of the pod that the spawner would create."""

    async def pod():
        return await (await _settled(config, name)).get_pod_manifest()

    pod = asyncio.run(pod())
    return {each.name: each.value for each in pod.spec.containers[0].env}


def test_a_server_finds_the_hub(configured):
    """The chart sets `c.KubeSpawner.environment`, to {} by default, but publishing needs the hub's address."""
    assert environment(configured())["CNAI_HUB_URL"] == URL


def test_an_app_finds_the_hub(configured):
    """The app fetches its release from this address."""
    config = configured(singleuser={"extraEnv": {"TZ": "Europe/Zurich"}})
    store = Store(paths.home() / "apps")
    app = App(owner="ada", slug="demo", title="Demo", created=1.0, published=1.0, current=1)
    release = Release(number=1, notebook="a.ipynb", author="ada", created=1.0, image="torch", reference=REFERENCE)
    with store.staging("ada", "demo") as stage:
        store.commit(stage, app, release)
    found = environment(config, app.server_name)
    assert (found["CNAI_HUB_URL"], found["TZ"], found["CNAI_HOME"]) == (URL, "Europe/Zurich", "/home/cnai/cnai")


def test_an_administrators_environment_arrives(configured):
    found = environment(configured(singleuser={"extraEnv": {"HF_HOME": "/models", "CNAI_HUB_URL": "http://other/"}}))
    assert (found["HF_HOME"], found["CNAI_HUB_URL"]) == ("/models", URL)


def test_the_hubs_address_has_the_base_url(configured):
    assert environment(configured(hub={"baseUrl": "/ml/"}))["CNAI_HUB_URL"] == URL + "ml/"


def test_a_release_with_a_name_of_its_own_finds_itself(configured, monkeypatch):
    monkeypatch.setenv("LAB_HUB_SERVICE_PORT", "8081")
    monkeypatch.setenv("LAB_PROXY_API_SERVICE_PORT", "8001")
    config = configured(fullnameOverride="lab")
    assert config.JupyterHub.hub_connect_url == "http://lab-hub.cnai:8081"
    assert environment(config)["CNAI_HUB_URL"] == "http://lab-proxy-public.cnai/"


@pytest.mark.parametrize(
    ("given", "patience", "expected"),
    [(None, 120, 600), (300, 120, 600), (1200, 120, 1200), (600, 900, 960)],
)
def test_a_start_lasts_at_least_as_long_as_a_server_waits_for_a_node(configured, given, patience, expected):
    values = {"singleuser": {"startTimeout": given}} if given else {}
    config = configured(custom={"cnai": {"patience_seconds": patience}}, **values)
    assert settled(config).start_timeout == expected


def test_an_administrators_pages_come_before_ours(configured):
    config = configured(hub={"templatePaths": ["/srv/pages"], "templateVars": {"announcement": "closed"}})
    first, ours = config.JupyterHub.template_paths
    assert (first, ours.rpartition("/")[2]) == ("/srv/pages", "hub")
    assert set(config.JupyterHub.template_vars) == {"announcement", "viewer"}


def test_an_administrator_says_where_people_arrive(configured):
    config = configured(hub={"config": {"JupyterHub": {"default_url": "/hub/home"}}})
    assert config.JupyterHub.default_url == "/hub/home"


def test_no_trait_of_a_spawner_is_set_for_two_classes(configured):
    """If both classes have a value, the more specific class silently wins."""
    sections = {name: traits for name, traits in configured().items() if name in CatalogKubeSpawner.section_names()}
    assert set(sections) == {"Spawner", "KubeSpawner", "CatalogKubeSpawner"}
    names = [name for traits in sections.values() for name in traits]
    assert sorted(names) == sorted(set(names))


def test_what_the_chart_says_of_servers_is_ours_to_say(configured):
    """Servers have none of the chart's volumes, containers and images, even if an administrator enables them."""
    config = configured(singleuser={"profileList": [{"display_name": "x"}], "initContainers": [{"name": "x"}]})
    spawner = settled(config)
    assert (spawner.profile_list, spawner.init_containers, spawner.image) == ([], [], REFERENCE)
    assert [each["name"] for each in spawner.volumes] == ["home", "shm"]
    assert spawner.cmd == ["python", "-m", "cnai_hub.kubernetes.notebook"]


def test_services_and_roles_of_the_chart_stay(configured):
    config = configured(hub={"loadRoles": {"auditor": {"scopes": ["list:users"], "users": ["eve"]}}})
    hub = JupyterHub(config=config)
    assert {each["name"] for each in hub.services} == {"jupyterhub-idle-culler", "apps"}
    assert {each["name"] for each in hub.load_roles} >= {"jupyterhub-idle-culler", "auditor", "user", "creator", "apps"}
    assert hub.allow_named_servers
    assert hub.hub_connect_url == "http://hub.cnai:8081"
