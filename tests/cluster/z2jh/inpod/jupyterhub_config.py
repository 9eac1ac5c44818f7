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


def service(name):
    """Return the address of a Service from the variables that Kubernetes sets."""
    return f"http://{name}:{os.environ[name.upper().replace('-', '_') + '_SERVICE_PORT']}"


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
    "heritage": "jupyterhub",
    "chart": "jupyterhub-4.4.0",
    "release": get_config("Release.Name"),
}
c.KubeSpawner.namespace = os.environ["POD_NAMESPACE"]
for trait, key in {
    "start_timeout": "startTimeout",
    "events_enabled": "events",
    "extra_labels": "extraLabels",
    "extra_annotations": "extraAnnotations",
    "uid": "uid",
    "fs_gid": "fsGid",
    "service_account": "serviceAccountName",
    "node_selector": "nodeSelector",
    "mem_limit": "memory.limit",
    "mem_guarantee": "memory.guarantee",
    "cpu_limit": "cpu.limit",
    "cpu_guarantee": "cpu.guarantee",
    "extra_resource_limits": "extraResource.limits",
    "environment": "extraEnv",
    "profile_list": "profileList",
    "extra_pod_config": "extraPodConfig",
}.items():
    set_config_if_not_none(c.KubeSpawner, trait, f"singleuser.{key}")
c.KubeSpawner.allow_privilege_escalation = get_config("singleuser.allowPrivilegeEscalation")
set_config_if_not_none(c.Spawner, "cmd", "singleuser.cmd")
set_config_if_not_none(c.Spawner, "default_url", "singleuser.defaultUrl")

if get_config("scheduling.userScheduler.enabled"):
    c.KubeSpawner.scheduler_name = "user-scheduler"
if get_config("scheduling.userPods.nodeAffinity.matchNodePurpose") == "prefer":
    purpose = {"key": "hub.jupyter.org/node-purpose", "operator": "In", "values": ["user"]}
    c.KubeSpawner.node_affinity_preferred = [{"weight": 100, "preference": {"matchExpressions": [purpose]}}]
c.KubeSpawner.tolerations = get_config("scheduling.userPods.tolerations")
if get_config("singleuser.storage.type") != "none":
    sys.exit("this loader has no volumes of servers; set singleuser.storage.type to none")
if get_config("singleuser.cloudMetadata.blockWithIptables"):
    sys.exit("this loader has no init container that needs privileges; set blockWithIptables to false")

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
c.JupyterHub.cookie_secret = bytes.fromhex(get_secret_value("hub.config.JupyterHub.cookie_secret"))
c.CryptKeeper.keys = get_secret_value("hub.config.CryptKeeper.keys").split(";")
for section, traits in get_config("hub.config", {}).items():
    c[section].update(traits)

for _, code in sorted(get_config("hub.extraConfig", {}).items()):
    exec(code)
