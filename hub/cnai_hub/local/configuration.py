"""Configure JupyterHub as cnai's hub on one machine; `jupyterhub_config.py` only needs to call `configure`."""

from __future__ import annotations

import errno
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from cnai import environment, paths, programs
from cnai.errors import CnaiError, HubError
from cnai_hub import pages, roles
from cnai_hub.apps import configuration as apps
from cnai_hub.local import credentials, ports, proxy
from cnai_hub.local.account import person_name
from cnai_hub.local.spawner import inherited, own_programs_first
from cnai_hub.seeding import JUPYTER_CONFIG, seed

if TYPE_CHECKING:
    from pathlib import Path

GUEST = "guest"

_log = logging.getLogger(__name__)


def configure(c: Any, *, home: str | Path | None = None, port: int | None = None, person: str | None = None) -> None:
    """Fill in the configuration `c` of a hub for one trusted person and `guest`, on loopback.

    `home` defaults to `$CNAI_HOME` (`~/cnai`), `port` to `$CNAI_PORT` (8000), `person` to `$CNAI_PERSON` (the account
    that runs the hub). An invalid value ends the process with a one-line message.
    """
    try:
        if home is not None:
            os.environ[environment.HOME.name] = str(home)
        _configure(c, port or environment.PORT.get(), person or person_name())
    except (CnaiError, OSError) as error:
        raise SystemExit(f"cnai: {explain(error)}") from None


def explain(error: CnaiError | OSError) -> str:
    """Return the error as one line, with what to do if the disk is full."""
    if not isinstance(error, OSError):
        return str(error)
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return (
            f"{error.strerror} below {paths.home()}; free space there, or choose another folder with {environment.HOME}"
        )
    return f"{error.strerror}: {error.filename}" if error.filename else str(error)


def state_dir() -> Path:
    """Return the folder with the hub's state and secrets, which only its owner can open."""
    folder = paths.home() / "hub"
    # These characters are special in database URLs (%, ?) and in JupyterHub's folder names ({, }).
    if wrong := sorted(set(str(folder)) & set("%?{}")):
        raise HubError(
            f"{folder.parent} can't be cnai's folder because its path contains {' '.join(wrong)};"
            f" choose another one with {environment.HOME}"
        )
    return paths.private(folder)


def _configure(c: Any, port: int, person: str) -> None:
    if person == GUEST:
        raise HubError(
            f"the person can't be {GUEST!r}, which only opens apps; choose another name with {environment.PERSON}"
        )
    state = state_dir()
    secrets = credentials.load(state)
    ports.claim(port)
    _listen(c, state, port)
    _login(c, state, person, secrets)
    _servers(c)
    pages.install(c, roles.CREATORS)
    _people(c, person, secrets)
    # Servers publish at this address; on one machine they reach the hub at the same address as people.
    servers = own_programs_first(inherited() | dict(c.Spawner.environment))
    c.Spawner.environment[environment.HUB_URL.name] = apps.install(
        c, paths.home(), creators=roles.CREATORS, owner=person, inherited=servers
    )
    _mark(c)
    seed(paths.home() / "notebooks", state)
    if os.geteuid() == 0:
        _log.warning("cnai runs as root: notebooks and apps can do everything on this machine")


def _listen(c: Any, state: Path, port: int) -> None:
    internal = ports.internal(state, ("hub", "proxy"))
    c.JupyterHub.bind_url = f"http://{ports.LOOPBACK}:{port}/"
    c.JupyterHub.hub_ip = ports.LOOPBACK
    c.JupyterHub.hub_port = internal["hub"]
    c.JupyterHub.db_url = f"sqlite:///{state / 'jupyterhub.sqlite'}"
    c.JupyterHub.cookie_secret_file = str(state / "cookie_secret")
    c.JupyterHub.pid_file = str(state / "hub.pid")
    c.JupyterHub.proxy_class = "configurable-http-proxy"
    c.ConfigurableHTTPProxy.api_url = f"http://{ports.LOOPBACK}:{internal['proxy']}"
    c.ConfigurableHTTPProxy.command = proxy.command()
    c.ConfigurableHTTPProxy.pid_file = str(state / "proxy.pid")
    c.ConfigurableHTTPProxy.log_level = "error"


def _login(c: Any, state: Path, person: str, secrets: credentials.Credentials) -> None:
    c.JupyterHub.authenticator_class = programs.LOCAL_LOGIN
    c.LocalAuthenticator.state = str(state)
    c.Authenticator.admin_users = {person}
    c.Authenticator.allowed_users = {GUEST}
    # Otherwise everybody in the database could log in with guest's password.
    c.Authenticator.allow_existing_users = False
    c.SharedPasswordAuthenticator.admin_password = secrets.person_password
    c.SharedPasswordAuthenticator.user_password = secrets.guest_password


def _servers(c: Any) -> None:
    c.JupyterHub.spawner_class = "cnai-local"
    c.JupyterHub.allow_named_servers = True
    c.JupyterHub.redirect_to_server = False
    c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
    c.Spawner.notebook_dir = str(paths.home() / "notebooks")
    c.Spawner.default_url = "/lab"
    c.Spawner.args = ["--allow-root"] if os.geteuid() == 0 else []
    # Otherwise JupyterLab contacts its project's site for news and updates, and package registries for extensions.
    quiet = str(JUPYTER_CONFIG)
    given = os.environ.get("JUPYTER_CONFIG_PATH")
    c.Spawner.environment = {
        "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, (quiet, given))),
        # The layout of open tabs belongs to these notebooks, not to every JupyterLab of the account.
        "JUPYTERLAB_WORKSPACES_DIR": str(paths.home() / "hub" / "workspaces"),
        "TORCHINDUCTOR_CACHE_DIR": paths.compiled_dir(os.environ),
    }
    c.Spawner.start_timeout = c.Spawner.http_timeout = 120
    c.LocalProcessSpawner.interrupt_timeout = c.LocalProcessSpawner.term_timeout = 10


def _people(c: Any, person: str, secrets: credentials.Credentials) -> None:
    c.JupyterHub.load_groups = {roles.CREATORS: {"users": [person]}}
    c.JupyterHub.load_roles = roles.roles(person)
    c.JupyterHub.services = [{"name": roles.WORKBENCH, "api_token": secrets.workbench_token, "display": False}]


def _mark(c: Any) -> None:
    """Mark the processes of services, so that the launcher finds those that a crashed hub left behind."""
    if mark := environment.WORKBENCH.get():
        for service in c.JupyterHub.services:
            if "command" in service:
                service.setdefault("environment", {})[environment.WORKBENCH.name] = mark
