"""Configuration of the hub in its pod: values become traits as the chart does it, then `hub.extraConfig` runs."""

# ruff: noqa: F821 - traitlets puts `c` here

import os
import re
import sys

from jupyterhub.utils import url_path_join
from tornado.httpclient import AsyncHTTPClient

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from kubernetes_asyncio import client
from z2jh import get_config, get_secret_value, set_config_if_not_none


def camel(trait):
    """Return a trait's name as values spell it."""
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), trait)


def full(name):
    """Return the name that an object of the release has."""
    override = get_config("fullnameOverride")
    return f"{override}-{name}" if override else name


def service(name):
    """Return the address of a Service from the variables that Kubernetes sets."""
    variable = full(name).upper().replace("-", "_") + "_SERVICE_PORT"
    return f"http://{full(name)}:{os.environ[variable]}"


AsyncHTTPClient.configure("tornado.curl_httpclient.CurlAsyncHTTPClient")
c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
c.ConfigurableHTTPProxy.api_url = service("proxy-api")
c.ConfigurableHTTPProxy.should_start = False
c.JupyterHub.cleanup_servers = False
c.JupyterHub.last_activity_interval = 60
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0}
c.JupyterHub.hub_bind_url = "http://:8081"
c.JupyterHub.hub_connect_url = service("hub")
match get_config("hub.db.type"):
    case "sqlite-pvc":
        c.JupyterHub.db_url = "sqlite:///jupyterhub.sqlite"
    case "sqlite-memory":
        c.JupyterHub.db_url = "sqlite://"
    case _:
        set_config_if_not_none(c.JupyterHub, "db_url", "hub.db.url")

for trait in (
    "concurrent_spawn_limit",
    "active_server_limit",
    "base_url",
    "allow_named_servers",
    "named_server_limit_per_user",
    "authenticate_prometheus",
    "redirect_to_server",
    "shutdown_on_logout",
    "template_paths",
    "template_vars",
):
    set_config_if_not_none(c.JupyterHub, trait, f"hub.{camel(trait)}")
set_config_if_not_none(c.Spawner, "consecutive_failure_limit", "hub.consecutiveFailureLimit")

about = {"name": get_config("nameOverride") or get_config("Chart.Name", "jupyterhub")}
about["instance"] = get_config("Release.Name")
about["chart"] = f"{get_config('Chart.Name')}-{get_config('Chart.Version')}" if get_config("Chart.Version") else None
c.KubeSpawner.common_labels = {"app.kubernetes.io/managed-by": "kubespawner"} | {
    label: about[fact]
    for label, fact in {
        "app": "name",
        "app.kubernetes.io/name": "name",
        "release": "instance",
        "app.kubernetes.io/instance": "instance",
        "chart": "chart",
        "helm.sh/chart": "chart",
    }.items()
    if about[fact]
}
c.KubeSpawner.namespace = os.environ["POD_NAMESPACE"]
for trait, key in {
    "pod_name_template": "podNameTemplate",
    "start_timeout": "startTimeout",
    "image_pull_policy": "image.pullPolicy",
    "events_enabled": "events",
    "extra_labels": "extraLabels",
    "extra_annotations": "extraAnnotations",
    "uid": "uid",
    "fs_gid": "fsGid",
    "service_account": "serviceAccountName",
    "storage_extra_labels": "storage.extraLabels",
    "node_selector": "nodeSelector",
    "node_affinity_required": "extraNodeAffinity.required",
    "node_affinity_preferred": "extraNodeAffinity.preferred",
    "pod_affinity_required": "extraPodAffinity.required",
    "pod_affinity_preferred": "extraPodAffinity.preferred",
    "pod_anti_affinity_required": "extraPodAntiAffinity.required",
    "pod_anti_affinity_preferred": "extraPodAntiAffinity.preferred",
    "lifecycle_hooks": "lifecycleHooks",
    "init_containers": "initContainers",
    "extra_containers": "extraContainers",
    "mem_limit": "memory.limit",
    "mem_guarantee": "memory.guarantee",
    "cpu_limit": "cpu.limit",
    "cpu_guarantee": "cpu.guarantee",
    "extra_resource_limits": "extraResource.limits",
    "extra_resource_guarantees": "extraResource.guarantees",
    "environment": "extraEnv",
    "profile_list": "profileList",
    "extra_pod_config": "extraPodConfig",
}.items():
    set_config_if_not_none(c.KubeSpawner, trait, f"singleuser.{key}")
if get_config("singleuser.image.name"):
    c.KubeSpawner.image = ":".join(filter(None, (get_config(f"singleuser.image.{key}") for key in ("name", "tag"))))
c.KubeSpawner.allow_privilege_escalation = get_config("singleuser.allowPrivilegeEscalation")
created = get_config("imagePullSecret.create") and get_config("imagePullSecret.automaticReferenceInjection")
if pull_secrets := [
    *([full("image-pull-secret")] if created else []),
    *(get_config("imagePullSecrets") or []),
    *(get_config("singleuser.image.pullSecrets") or []),
]:
    c.KubeSpawner.image_pull_secrets = pull_secrets
# A command of null is one, too: it means that of the image.
if "cmd" in get_config("singleuser"):
    c.Spawner.cmd = get_config("singleuser.cmd")
set_config_if_not_none(c.Spawner, "default_url", "singleuser.defaultUrl")

if get_config("scheduling.userScheduler.enabled"):
    c.KubeSpawner.scheduler_name = full("user-scheduler")
if get_config("scheduling.podPriority.enabled"):
    c.KubeSpawner.priority_class_name = full("priority")
purpose = {"matchExpressions": [{"key": "hub.jupyter.org/node-purpose", "operator": "In", "values": ["user"]}]}
match get_config("scheduling.userPods.nodeAffinity.matchNodePurpose"):
    case "prefer":
        c.KubeSpawner.node_affinity_preferred.append({"weight": 100, "preference": purpose})
    case "require":
        c.KubeSpawner.node_affinity_required.append(purpose)
if tolerations := [
    *get_config("scheduling.userPods.tolerations", []),
    *get_config("singleuser.extraTolerations", []),
]:
    c.KubeSpawner.tolerations = tolerations

volumes, mounts = {}, {}
storage = get_config("singleuser.storage")
match storage["type"]:
    case "dynamic":
        set_config_if_not_none(c.KubeSpawner, "pvc_name_template", "singleuser.storage.dynamic.pvcNameTemplate")
        set_config_if_not_none(c.KubeSpawner, "storage_class", "singleuser.storage.dynamic.storageClass")
        set_config_if_not_none(c.KubeSpawner, "storage_access_modes", "singleuser.storage.dynamic.storageAccessModes")
        set_config_if_not_none(c.KubeSpawner, "storage_capacity", "singleuser.storage.capacity")
        c.KubeSpawner.storage_pvc_ensure = True
        home, claim, folder = storage["dynamic"]["volumeNameTemplate"], "{pvc_name}", storage["dynamic"].get("subPath")
    case "static":
        home, claim, folder = "home", storage["static"].get("pvcName"), storage["static"].get("subPath")
    case _:
        home = ""
if home:
    volumes[home] = {"name": home, "persistentVolumeClaim": {"claimName": claim}}
    mounts[home] = {"name": home, "mountPath": storage.get("homeMountPath"), "subPath": folder}
if files := get_config("singleuser.extraFiles", {}):
    items = [
        {"key": key, "path": key, **{name: file[name] for name in ("mode",) if name in file}}
        for key, file in files.items()
    ]
    volumes["files"] = {"name": "files", "secret": {"secretName": full("singleuser"), "items": items}}
    for number, (key, file) in enumerate(files.items()):
        mounts[f"{number}-files"] = {"name": "files", "mountPath": file["mountPath"], "subPath": key}
for extra, into, key in (
    (storage.get("extraVolumes", {}), volumes, lambda _, each: each["name"]),
    (storage.get("extraVolumeMounts", {}), mounts, lambda number, each: f"{number}-{each['name']}"),
):
    into.update(extra if isinstance(extra, dict) else {key(*pair): pair[1] for pair in enumerate(extra)})
c.KubeSpawner.volumes = volumes
c.KubeSpawner.volume_mounts = mounts

if get_config("singleuser.cloudMetadata.blockWithIptables"):
    tools = get_config("singleuser.networkTools")
    rule = "--append OUTPUT --protocol tcp --destination {} --destination-port 80 --jump DROP"
    c.KubeSpawner.init_containers.append(
        client.V1Container(
            name="block-cloud-metadata",
            image=f"{tools['image']['name']}:{tools['image']['tag']}",
            command=["iptables", *rule.format(get_config("singleuser.cloudMetadata.ip")).split()],
            security_context=client.V1SecurityContext(
                privileged=True, run_as_user=0, capabilities=client.V1Capabilities(add=["NET_ADMIN"])
            ),
            resources=tools["resources"],
        )
    )

c.JupyterHub.load_roles = []
c.JupyterHub.services = []
if get_config("cull.enabled"):
    scopes = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
    c.JupyterHub.load_roles.append(
        {"name": "jupyterhub-idle-culler", "scopes": scopes, "services": ["jupyterhub-idle-culler"]}
    )
    api = url_path_join(c.JupyterHub.get("base_url", "/"), "hub/api")
    command = ["python3", "-m", "jupyterhub_idle_culler", f"--url=http://localhost:8081{api}"]
    for option, key in {"timeout": "timeout", "cull-every": "every", "concurrency": "concurrency"}.items():
        command += [f"--{option}={get_config(f'cull.{key}')}"] if get_config(f"cull.{key}") else []
    if get_config("cull.users"):
        command.append("--cull-users")
        scopes.append("admin:users")
    command += [] if get_config("cull.adminUsers") else ["--cull-admin-users=false"]
    command += ["--remove-named-servers"] if get_config("cull.removeNamedServers") else []
    command += [f"--max-age={get_config('cull.maxAge')}"] if get_config("cull.maxAge") else []
    c.JupyterHub.services.append({"name": "jupyterhub-idle-culler", "command": command})
for name, given in get_config("hub.services", {}).items():
    token = get_secret_value(f"hub.services.{name}.apiToken")
    c.JupyterHub.services.append(
        {"name": name, **{k: v for k, v in given.items() if k != "apiToken"}, "api_token": token}
    )
c.JupyterHub.load_roles.extend({"name": name, **each} for name, each in get_config("hub.loadRoles", {}).items())

if get_config("debug.enabled"):
    c.JupyterHub.log_level = "DEBUG"
    c.Spawner.debug = True
c.JupyterHub.cookie_secret = get_secret_value("hub.config.JupyterHub.cookie_secret")
c.CryptKeeper.keys = get_secret_value("hub.config.CryptKeeper.keys").split(";")
for section, traits in get_config("hub.config", {}).items():
    c[section].update(traits)

for _, code in sorted(get_config("hub.extraConfig", {}).items()):
    exec(code)
