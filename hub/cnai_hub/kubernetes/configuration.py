"""Configure JupyterHub as cnai's hub on a cluster, in addition to the chart's configuration."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from cnai import environment as variables
from cnai import programs
from cnai.errors import CnaiError, UsageError
from cnai_hub import pages, roles
from cnai_hub.apps import configuration as apps
from cnai_hub.kubernetes import given
from cnai_hub.kubernetes.settings import Settings, parse

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

APPS_PORT = 8082
STATE = "/srv/cnai"
"""The folder in the hub's pod for releases of apps ($CNAI_HOME)."""

START_SECONDS = 600
"""A start may take at least this long: pulling an image with CUDA onto a fresh node takes minutes."""

_CHARTS_SPAWNER = "kubespawner.KubeSpawner"


def configure(
    c: Any,
    settings: Any,
    values: Callable[[str], Any] = lambda _: None,
    environment: MutableMapping[str, str] = os.environ,
) -> None:
    """Fill in the configuration `c` of a hub; an invalid setting ends the process with one line that names its key.

    `settings` are those below `custom.cnai`; `values` returns the chart's value of a path of keys.
    """
    try:
        ours = parse(settings)
        given.check(c, values)
        _check(c)
        ours = _connected(c, ours, values)
    except CnaiError as error:
        raise SystemExit(f"cnai: {error}") from None
    environment.setdefault(variables.HOME.name, STATE)
    _servers(c, ours)
    pages.install(c, ours.creators)
    _people(c, ours)
    _apps(c, ours, Path(environment[variables.HOME.name]))


def _check(c: Any) -> None:
    """Raise UsageError if the administrator has set up the hub for something else than cnai's servers and apps."""
    spawner = str(c.JupyterHub.get("spawner_class") or _CHARTS_SPAWNER)
    if spawner not in {_CHARTS_SPAWNER, programs.CLUSTER_SPAWNER}:
        raise UsageError(
            f"hub.config.JupyterHub.spawner_class can't be {spawner}: cnai starts servers from its catalog"
        )
    if c.JupyterHub.get("allow_named_servers") is False:
        raise UsageError("hub.allowNamedServers can't be false: apps are named servers")
    for key, names in {"load_roles": roles.OWN, "services": (roles.APPS,)}.items():
        entries = c.JupyterHub.get(key)
        for entry in entries if isinstance(entries, list) else []:
            if entry["name"] in names:
                where = "hub.loadRoles" if key == "load_roles" else "hub.services"
                raise UsageError(f"{where} can't have {entry['name']!r}, which cnai defines: choose another name")


def _servers(c: Any, settings: Settings) -> None:
    c.JupyterHub.spawner_class = programs.CLUSTER_SPAWNER
    c.JupyterHub.allow_named_servers = True
    c.JupyterHub.setdefault("redirect_to_server", False)
    c.CatalogKubeSpawner.settings = settings
    c.KubeSpawner.enable_user_namespaces = True
    c.KubeSpawner.events_enabled = True
    # A home outlives its servers, and the deletion of its user in the hub.
    c.KubeSpawner.delete_pvc = False
    given.keep(c, k8s_api_request_timeout=10, http_timeout=120)
    # By default KubeSpawner lists all pods and events of the cluster again every ten seconds.
    c.ResourceReflector.setdefault("timeout_seconds", 300)
    c.ResourceReflector.setdefault("restart_seconds", 600)
    # Set it on KubeSpawner, as the chart does: a value for the base class would not override the chart's.
    chosen = max(int(c[each].get("start_timeout") or 0) for each in ("KubeSpawner", "Spawner"))
    c.KubeSpawner.start_timeout = max(START_SECONDS, chosen, int(settings.patience_seconds) + 60)


def _own_address() -> str:
    # Use the pod IP: the Service routes only to a ready hub, and readiness needs the apps service.
    return f"http://{socket.gethostbyname(socket.gethostname())}:{APPS_PORT}"


def _connected(c: Any, settings: Settings, values: Callable[[str], Any]) -> Settings:
    """Add the hub's namespace to the names of hub and proxy, so that servers in other namespaces can resolve them."""
    namespace = settings.cluster.hub_namespace
    address = urlparse(str(c.JupyterHub.get("hub_connect_url") or ""))
    # The chart prefixes the names of all its Services with `fullnameOverride`.
    service = re.fullmatch("(.*-)?hub", address.hostname or "")
    if service:
        c.JupyterHub.hub_connect_url = f"http://{service[0]}.{namespace}:{address.port}"
    proxy = (service[1] or "" if service else "") + _proxy(values, settings)
    base_url = str(c.JupyterHub.get("base_url") or "").strip("/")
    host, _, port = proxy.partition(":")
    inside = f"http://{host}.{namespace}{port and f':{port}'}/" + (f"{base_url}/" if base_url else "")
    return replace(settings, inside=settings.inside or inside)


def _proxy(values: Callable[[str], Any], settings: Settings) -> str:
    """Return the chart's Service through which pods reach the proxy by plain HTTP, with a port if it isn't 80."""
    kind = str(values("proxy.https.type")) if values("proxy.https.enabled") else ""
    if kind in {"manual", "secret"} and not settings.inside:
        raise UsageError(
            f"proxy.https.type can't be {kind} without custom.cnai.inside: the proxy redirects servers to HTTPS;"
            " terminate TLS at an ingress, or name an address at which servers reach the proxy"
        )
    return "proxy-http:8000" if kind == "letsencrypt" and values("proxy.https.hosts") else "proxy-public"


def _people(c: Any, settings: Settings) -> None:
    others = c.JupyterHub.get("load_roles")
    c.JupyterHub.load_roles = [*(others if isinstance(others, list) else []), *roles.people(settings.creators)]


def _apps(c: Any, settings: Settings, state: Path) -> None:
    if not isinstance(c.JupyterHub.get("services"), list):
        c.JupyterHub.services = []
    apps.install(
        c,
        state,
        creators=settings.creators,
        url=settings.url,
        service=settings.apps_service or _own_address(),
        catalog=settings.catalog.to_json(),
    )
