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
from cnai.errors import CnaiError
from cnai_hub import pages, roles
from cnai_hub.apps import configuration as apps
from cnai_hub.kubernetes.settings import Settings, parse

if TYPE_CHECKING:
    from collections.abc import MutableMapping

APPS_PORT = 8082
STATE = "/srv/cnai"
"""The folder in the hub's pod for releases of apps ($CNAI_HOME)."""

START_SECONDS = 600
"""A start may take at least this long: pulling an image with CUDA onto a fresh node takes minutes."""


def configure(c: Any, settings: Any, environment: MutableMapping[str, str] = os.environ) -> None:
    """Fill in the configuration `c` of a hub; an invalid setting ends the process with one line that names its key."""
    try:
        given = parse(settings)
    except CnaiError as error:
        raise SystemExit(f"cnai: {error}") from None
    environment.setdefault(variables.HOME.name, STATE)
    given = _connected(c, given)
    _servers(c, given)
    pages.install(c, given.creators)
    _people(c, given)
    _apps(c, given, Path(environment[variables.HOME.name]))


def _servers(c: Any, settings: Settings) -> None:
    c.JupyterHub.spawner_class = programs.CLUSTER_SPAWNER
    c.JupyterHub.allow_named_servers = True
    c.JupyterHub.redirect_to_server = False
    c.CatalogKubeSpawner.settings = settings
    c.KubeSpawner.enable_user_namespaces = True
    # Everything about a pod comes from the catalog.
    c.KubeSpawner.profile_list = []
    c.KubeSpawner.events_enabled = True
    # A home outlives its servers, and the deletion of its user in the hub.
    c.KubeSpawner.delete_pvc = False
    c.KubeSpawner.k8s_api_request_timeout = 10
    # By default KubeSpawner lists all pods and events of the cluster again every ten seconds.
    c.ResourceReflector.timeout_seconds = 300
    c.ResourceReflector.restart_seconds = 600
    # Set it on KubeSpawner, as the chart does: a value for the base class would not override the chart's.
    chosen = int(c.KubeSpawner.get("start_timeout") or 0)
    c.KubeSpawner.start_timeout = max(START_SECONDS, chosen, int(settings.patience_seconds) + 60)
    c.KubeSpawner.http_timeout = 120


def _own_address() -> str:
    # Use the pod IP: the Service routes only to a ready hub, and readiness needs the apps service.
    return f"http://{socket.gethostbyname(socket.gethostname())}:{APPS_PORT}"


def _connected(c: Any, settings: Settings) -> Settings:
    """Add the hub's namespace to the names of hub and proxy, so that servers in other namespaces can resolve them."""
    namespace = settings.cluster.hub_namespace
    address = urlparse(str(c.JupyterHub.get("hub_connect_url") or ""))
    # The chart prefixes the names of all its Services with `fullnameOverride`.
    service = re.fullmatch("(.*-)?hub", address.hostname or "")
    if service:
        c.JupyterHub.hub_connect_url = f"http://{service[0]}.{namespace}:{address.port}"
    proxy = f"{service[1] or ''}proxy-public" if service else "proxy-public"
    base_url = str(c.JupyterHub.get("base_url") or "").strip("/")
    inside = f"http://{proxy}.{namespace}/" + (f"{base_url}/" if base_url else "")
    return replace(settings, inside=settings.inside or inside)


def _people(c: Any, settings: Settings) -> None:
    ours = roles.people(settings.creators)
    names = {role["name"] for role in ours}
    given = c.JupyterHub.get("load_roles")
    kept = [role for role in given if role["name"] not in names] if isinstance(given, list) else []
    c.JupyterHub.load_roles = [*kept, *ours]


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
