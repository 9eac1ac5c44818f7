"""Configuration of the hub in its pod: values become traits as the chart does it, then `hub.extraConfig` runs."""

# ruff: noqa: F821 - traitlets puts `c` here

import os
import re
import sys

from tornado.httpclient import AsyncHTTPClient

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

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
if get_config("hub.db.type") == "sqlite-pvc":
    c.JupyterHub.db_url = "sqlite:///jupyterhub.sqlite"
else:
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

c.KubeSpawner.common_labels = {
    "app": "jupyterhub",
    "app.kubernetes.io/name": "jupyterhub",
    "release": get_config("Release.Name"),
    "app.kubernetes.io/instance": get_config("Release.Name"),
    "chart": "jupyterhub-4.4.0",
    "helm.sh/chart": "jupyterhub-4.4.0",
    "app.kubernetes.io/managed-by": "kubespawner",
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
c.KubeSpawner.image = f"{get_config('singleuser.image.name')}:{get_config('singleuser.image.tag')}"
c.KubeSpawner.allow_privilege_escalation = get_config("singleuser.allowPrivilegeEscalation")
if pull_secrets := [*get_config("imagePullSecrets", []), *get_config("singleuser.image.pullSecrets", [])]:
    c.KubeSpawner.image_pull_secrets = pull_secrets
set_config_if_not_none(c.Spawner, "cmd", "singleuser.cmd")
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
c.KubeSpawner.tolerations = [
    *get_config("scheduling.userPods.tolerations", []),
    *get_config("singleuser.extraTolerations", []),
]
if get_config("singleuser.storage.type") != "none":
    sys.exit("this loader has no volumes of servers; set singleuser.storage.type to none")
if get_config("singleuser.cloudMetadata.blockWithIptables"):
    sys.exit("this loader has no init container that needs privileges; set blockWithIptables to false")
c.KubeSpawner.volumes = {}
c.KubeSpawner.volume_mounts = {}

c.JupyterHub.load_roles = []
c.JupyterHub.services = []
if get_config("cull.enabled"):
    scopes = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
    c.JupyterHub.load_roles.append(
        {"name": "jupyterhub-idle-culler", "scopes": scopes, "services": ["jupyterhub-idle-culler"]}
    )
    command = [
        "python3",
        "-m",
        "jupyterhub_idle_culler",
        f"--url=http://localhost:8081{get_config('hub.baseUrl')}hub/api",
        f"--timeout={get_config('cull.timeout')}",
        f"--cull-every={get_config('cull.every')}",
        f"--concurrency={get_config('cull.concurrency')}",
    ]
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
