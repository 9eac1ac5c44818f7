"""Our configuration on top of the chart's: who wins, trait by trait, as the chart's own loader runs both."""

from __future__ import annotations

import asyncio
import json
import socket
from types import SimpleNamespace

import pytest
import yaml
import z2jh

pytest.importorskip("kubespawner", reason="the extra `kubernetes` is not installed")

from jupyterhub.app import JupyterHub

from cnai import paths
from cnai.backends.kubernetes import api, fleet
from cnai.engine.records import Room
from cnai_hub.apps.releases import App, Release, Store
from cnai_hub.kubernetes.spawner import CatalogKubeSpawner
from cnai_hub.servers import NotStarted
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


def manifest(config, name=""):
    """Return the pod that the spawner would create."""

    async def pod():
        return await (await _settled(config, name)).get_pod_manifest()

    return asyncio.run(pod())


def environment(config, name=""):
    """Return the environment of that pod."""
    return {each.name: each.value for each in manifest(config, name).spec.containers[0].env}


def publish():
    """Publish an app of ada, and return the name of its server."""
    store = Store(paths.home() / "apps")
    app = App(owner="ada", slug="demo", title="Demo", created=1.0, published=1.0, current=1)
    release = Release(number=1, notebook="a.ipynb", author="ada", created=1.0, image="torch", reference=REFERENCE)
    with store.staging("ada", "demo") as stage:
        store.commit(stage, app, release)
    return app.server_name


def test_a_server_finds_the_hub(configured):
    """The chart sets `c.KubeSpawner.environment`, to {} by default, but publishing needs the hub's address."""
    assert environment(configured())["CNAI_HUB_URL"] == URL


def test_an_app_finds_the_hub(configured):
    """The app fetches its release from this address."""
    config = configured(singleuser={"extraEnv": {"TZ": "Europe/Zurich"}})
    found = environment(config, publish())
    assert (found["CNAI_HUB_URL"], found["TZ"], found["CNAI_HOME"]) == (URL, "Europe/Zurich", "/home/cnai/cnai")


def test_an_administrators_environment_arrives(configured):
    """Numbers that are ours by default, too; cnai's own variables are refused."""
    found = environment(configured(singleuser={"extraEnv": {"HF_HOME": "/models", "OMP_NUM_THREADS": "7"}}))
    assert (found["HF_HOME"], found["OMP_NUM_THREADS"]) == ("/models", "7")


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


def test_a_server_is_the_catalogs(configured):
    """None of the chart's defaults for servers is left."""
    spawner = settled(configured())
    assert (spawner.profile_list, spawner.init_containers, spawner.image) == ([], [], REFERENCE)
    assert [each["name"] for each in spawner.volumes] == ["home", "shm"]
    assert spawner.cmd == ["python", "-m", "cnai_hub.kubernetes.notebook"]
    assert spawner.default_url == "/lab/tree/notebooks"


TOLERATION = {"key": "users", "operator": "Exists", "effect": "NoSchedule"}
PLACED = {"extraTolerations": [TOLERATION], "nodeSelector": {"pool": "users"}}
DATA = {"name": "data", "persistentVolumeClaim": {"claimName": "data-{username}"}}
MOUNT = {"name": "data", "mountPath": "/data"}
GIVEN = {
    **PLACED,
    "extraLabels": {"team": "vision"},
    "extraAnnotations": {"cost": "7"},
    "extraPodConfig": {"runtimeClassName": "nvidia"},
    "defaultUrl": "/lab",
    "lifecycleHooks": {"postStart": {"exec": {"command": ["true"]}}},
    "image": {"pullPolicy": "Always", "pullSecrets": [{"name": "registry"}]},
    "storage": {"extraVolumes": [DATA], "extraVolumeMounts": [MOUNT]},
}


def test_what_an_administrator_gives_to_servers_arrives_in_their_pods(configured):
    values = {"singleuser": GIVEN, "scheduling": {"podPriority": {"enabled": True}}}
    late = """
c.KubeSpawner.node_selector['late'] = 'yes'
c.CatalogKubeSpawner.extra_labels.update({'team': 'sound'})
c.Spawner.args = ['--debug']
"""
    config = configured(**values, hub={"extraConfig": {"zz": late}})
    for name in ("", publish()):
        pod = manifest(config, name)
        container = pod.spec.containers[0]
        assert {each.key for each in pod.spec.tolerations} == {
            "users",
            "hub.jupyter.org/dedicated",
            "hub.jupyter.org_dedicated",
        }
        assert pod.spec.node_selector == {"pool": "users", "late": "yes"}
        assert (pod.metadata.labels["team"], pod.metadata.annotations["cost"]) == ("sound", "7")
        assert pod.metadata.labels["cnai.dev/flavor"] == "small"
        assert (pod.spec.priority_class_name, pod.spec.runtime_class_name) == ("priority", "nvidia")
        assert (container.image_pull_policy, pod.spec.image_pull_secrets[0].name) == ("Always", "registry")
        # An app has no volumes, programs and arguments but its own.
        assert ("data" in [each.name for each in pod.spec.volumes]) is not name
        assert bool(container.lifecycle) is ("--debug" in container.args) is not name


def test_pods_of_runs_are_where_the_notebook_is(configured, monkeypatch):
    scheduling = {"podPriority": {"enabled": True}, "userPods": {"nodeAffinity": {"matchNodePurpose": "require"}}}
    config = configured(singleuser=GIVEN, scheduling=scheduling)
    monkeypatch.setenv("CNAI_EXTRAS", environment(config)["CNAI_EXTRAS"])
    monkeypatch.setattr(api, "connect", lambda: SimpleNamespace(namespace="cnai-ada"))
    monkeypatch.setenv("CNAI_CATALOG", json.dumps(OURS["custom"]["cnai"]["catalog"]))
    made = fleet.manifest("engine", Room(flavor="gpu-h100", image_reference=REFERENCE), 2)["spec"]
    node, scheduler = made["worker"]["spec"], made["scheduler"]["spec"]
    assert node["nodeSelector"] == {"pool": "users", "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert scheduler["nodeSelector"] == {"pool": "users"}
    users = {"matchExpressions": [{"key": "hub.jupyter.org/node-purpose", "operator": "In", "values": ["user"]}]}
    for pod in (node, scheduler):
        assert (pod["priorityClassName"], pod["runtimeClassName"]) == ("priority", "nvidia")
        assert pod["imagePullSecrets"] == [{"name": "registry"}] and not pod["enableServiceLinks"]
        required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert required == {"nodeSelectorTerms": [users]}
    assert {"nvidia.com/gpu", "users"} < {each["key"] for each in node["tolerations"]}
    assert {each["key"] for each in scheduler["tolerations"]} < {each["key"] for each in node["tolerations"]}
    assert {**DATA, "persistentVolumeClaim": {"claimName": "data-ada"}} in node["volumes"]
    assert MOUNT in node["containers"][0]["volumeMounts"]


REFUSED = {
    "singleuser.profileList": {"singleuser": {"profileList": [{"display_name": "x"}]}},
    "singleuser.image.name": {"singleuser": {"image": {"name": "registry.example/lab", "tag": "1"}}},
    "singleuser.cmd": {"singleuser": {"cmd": ["start.sh"]}},
    "singleuser.memory.limit": {"singleuser": {"memory": {"limit": "8G"}}},
    "singleuser.cpu.guarantee": {"singleuser": {"cpu": {"guarantee": 2}}},
    "singleuser.extraResource.limits": {"singleuser": {"extraResource": {"limits": {"nvidia.com/gpu": "1"}}}},
    "singleuser.storage.type": {"singleuser": {"storage": {"type": "dynamic"}}},
    "singleuser.storage can't have a volume 'home'": {
        "singleuser": {"storage": {"type": "static", "static": {"pvcName": "everybody"}}}
    },
    "singleuser.storage.extraVolumeMounts can't have /home/cnai/": {
        "singleuser": {"storage": {"extraVolumeMounts": [{"name": "x", "mountPath": "/home/cnai/"}]}}
    },
    "singleuser.initContainers": {"singleuser": {"initContainers": [{"name": "x", "image": "x"}]}},
    "blockWithIptables": {"singleuser": {"cloudMetadata": {"blockWithIptables": True}}},
    "singleuser.extraContainers": {"singleuser": {"extraContainers": [{"name": "x", "image": "x"}]}},
    "singleuser.extraFiles": {"singleuser": {"extraFiles": {"a": {"mountPath": "/etc/a", "stringData": "a"}}}},
    "singleuser.uid": {"singleuser": {"uid": 0}},
    "singleuser.allowPrivilegeEscalation": {"singleuser": {"allowPrivilegeEscalation": True}},
    "singleuser.serviceAccountName": {"singleuser": {"serviceAccountName": "robot"}},
    "singleuser.events": {"singleuser": {"events": False}},
    "singleuser.nodeSelector": {"singleuser": {"nodeSelector": {"nvidia.com/gpu.product": "T4"}}},
    "singleuser.extraEnv can't have CNAI_HUB_URL": {"singleuser": {"extraEnv": {"CNAI_HUB_URL": "http://other/"}}},
    "singleuser.networkPolicy.enabled": {"singleuser": {"networkPolicy": {"enabled": True}}},
    "KubeSpawner.delete_pvc": {"hub": {"config": {"KubeSpawner": {"delete_pvc": True}}}},
    "KubeSpawner.notebook_dir": {"hub": {"config": {"Spawner": {"notebook_dir": "/work"}}}},
    "KubeSpawner.enable_user_namespaces": {"hub": {"config": {"KubeSpawner": {"enable_user_namespaces": False}}}},
    "hub.config.JupyterHub.spawner_class": {"hub": {"config": {"JupyterHub": {"spawner_class": "simple"}}}},
    "hub.allowNamedServers": {"hub": {"allowNamedServers": False}},
    "hub.loadRoles can't have 'user'": {"hub": {"loadRoles": {"user": {"scopes": ["self"]}}}},
    "hub.services can't have 'apps'": {"hub": {"services": {"apps": {"url": "http://other"}}}},
    "cull.removeNamedServers": {"cull": {"removeNamedServers": True}},
    "cull.users": {"cull": {"users": True}},
    "proxy.https.type": {"proxy": {"https": {"enabled": True, "type": "manual"}}},
    "KubeSpawner.privileged": {"hub": {"extraConfig": {"a": "c.KubeSpawner.privileged = True"}}},
    "singleuser.memory.guarantee": {"hub": {"extraConfig": {"a": "c.CatalogKubeSpawner.mem_guarantee = '9G'"}}},
}


@pytest.mark.parametrize(("line", "values"), REFUSED.items(), ids=REFUSED)
def test_what_would_be_lost_is_refused_with_a_line(configured, line, values):
    with pytest.raises(SystemExit) as refused:
        configured(**values)
    assert str(refused.value).startswith("cnai: ") and line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_set_after_us_is_refused_when_a_server_starts(configured):
    config = configured(hub={"extraConfig": {"zz": "c.KubeSpawner.mem_limit = '9G'"}})
    with pytest.raises(NotStarted, match=r"singleuser.memory.limit can't be 9G"):
        settled(config)


def test_settings_of_the_hub_that_are_an_administrators_stay(configured):
    spawner = {"http_timeout": 33, "k8s_api_request_timeout": 20}
    hub = {"redirectToServer": True, "config": {"Spawner": spawner, "ResourceReflector": {"timeout_seconds": 9}}}
    config = configured(hub=hub)
    found = settled(config)
    assert (found.http_timeout, found.k8s_api_request_timeout) == (33, 20)
    assert (config.ResourceReflector.timeout_seconds, config.JupyterHub.redirect_to_server) == (9, True)


def test_servers_reach_the_proxy_behind_its_own_tls(configured):
    """The public Service would redirect them to a certificate for another name."""
    https = {"enabled": True, "type": "letsencrypt", "hosts": ["cnai.example.org"]}
    assert environment(configured(proxy={"https": https}))["CNAI_HUB_URL"] == "http://proxy-http.cnai:8000/"


def test_services_and_roles_of_the_chart_stay(configured):
    config = configured(hub={"loadRoles": {"auditor": {"scopes": ["list:users"], "users": ["eve"]}}})
    hub = JupyterHub(config=config)
    assert {each["name"] for each in hub.services} == {"jupyterhub-idle-culler", "apps"}
    assert {each["name"] for each in hub.load_roles} >= {"jupyterhub-idle-culler", "auditor", "user", "creator", "apps"}
    assert hub.allow_named_servers
    assert hub.hub_connect_url == "http://hub.cnai:8081"
