"""The part of a hub's configuration for apps: their service, its rights, and a terminal's token for publishing."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from typing import TYPE_CHECKING, Any

from cnai import environment as variables
from cnai import paths, programs
from cnai.appwire import Terminal
from cnai_hub.roles import APPS, TERMINAL

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_PASSED_ON = ("HOME", "TMPDIR", "TZ", variables.CATALOG.name)

_ACCESS = f"access:services!service={APPS}"


def install(
    c: Any,
    state: Path,
    *,
    creators: str = "creators",
    owner: str | None = None,
    inherited: Mapping[str, str] | None = None,
    url: str = "",
    service: str = "",
    catalog: str = "",
) -> str:
    """Add the apps service and its rights to a hub's configuration; return the hub's public address.

    `state` is $CNAI_HOME. Members of the group `creators` may publish. With `owner`, a terminal on this machine may
    publish for that user: url and token are written to `hub/client.json`, readable only by this account, together with
    the variables that apps inherit from the hub, so that a trial in the terminal has no others. People open
    `url` (default: the address that the hub listens on), and the proxy reaches the service at `service` (default:
    loopback). With a `catalog` (JSON text), apps are pods: each release has an image and a flavor that its author may
    start, and contains the runs that it shows.
    """
    hub_url = _with_slash(url) if url else _hub_url(c)
    environment = {
        variables.HOME.name: str(state),
        variables.HUB_URL.name: hub_url,
        variables.APPS_CREATORS.name: creators,
    }
    # Pass on only these variables: the hub's environment also holds secrets.
    environment |= {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    if catalog:
        environment |= {variables.APPS_IN_PODS.name: "1", variables.CATALOG.name: catalog}
    if owner:
        environment[variables.APPS_TERMINAL_OWNER.name] = owner
        _let_terminal_in(c, state, hub_url, dict(inherited or {}))
    c.JupyterHub.allow_named_servers = True
    c.JupyterHub.services.append(
        {
            "name": APPS,
            "url": service or f"http://127.0.0.1:{_free_port()}",
            # On a cluster the hub checks it through its own Service, which routes here only once the hub is ready.
            "timeout": 120,
            "command": [sys.executable, "-m", programs.APPS_SERVICE],
            "environment": environment,
            "oauth_no_confirm": True,
            "oauth_client_allowed_scopes": [],
            "display": False,
        }
    )
    c.JupyterHub.load_roles.append(
        {
            "name": APPS,
            "description": "Publish notebooks: create, share, start and stop app servers",
            "services": [APPS],
            "scopes": ["servers", "shares", "read:users:name", "read:users:groups", "read:groups"],
        }
    )
    _everyone_may(c, _ACCESS)
    return hub_url


def _everyone_may(c: Any, scope: str) -> None:
    """Add a scope to the role `user`, which every user has."""
    roles = c.JupyterHub.load_roles
    for role in roles if isinstance(roles, list) else []:
        if role["name"] == "user":
            role["scopes"] = [*(kept for kept in role["scopes"] if kept != scope), scope]
            return
    roles.append({"name": "user", "scopes": ["self", scope]})


def _let_terminal_in(c: Any, state: Path, hub_url: str, inherited: dict[str, str]) -> None:
    token = secrets.token_hex(32)
    c.JupyterHub.services.append({"name": TERMINAL, "api_token": token, "display": False})
    c.JupyterHub.load_roles.append({"name": TERMINAL, "services": [TERMINAL], "scopes": [_ACCESS]})
    file = paths.private(state / "hub") / "client.json"
    fresh = file.with_name(f".client-{os.getpid()}.json")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(Terminal(hub_url=hub_url, token=token, environment=inherited, umask=_umask()).to_json())
    fresh.replace(file)


def _umask() -> int:
    os.umask(mask := os.umask(0))
    return mask


def _hub_url(c: Any) -> str:
    """Return the hub's public address, with a trailing slash."""
    given = c.JupyterHub.get("public_url") or c.JupyterHub.get("bind_url") or "http://127.0.0.1:8000"
    url = str(given).replace("//:", "//127.0.0.1:").replace("//0.0.0.0", "//127.0.0.1")
    return _with_slash(url)


def _with_slash(url: str) -> str:
    return url.rstrip("/") + "/"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
