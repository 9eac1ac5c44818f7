"""The app server: Voila for one release, with the hub's login in the same process.

The spawner runs `python -m cnai_hub.apps.server <folder of the app>`. Viewers can use widgets, but they can't run code
or see sources and tracebacks, and they share no kernel.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import psutil
from jupyter_server.services.kernels.handlers import KernelHandler
from jupyter_server_mathjax.app import STATIC_ASSETS_PATH
from jupyterhub.services.auth import HubOAuth
from jupyterhub.singleuser.extension import JupyterHubAuthorizer, JupyterHubOAuthCallbackHandler
from traitlets import default
from traitlets.config import Config
from voila.app import Voila
from voila.static_file_handler import AllowListFileHandler

from cnai import paths
from cnai.errors import HubError
from cnai_hub.apps import conditions, frontends
from cnai_hub.apps.channels import waking
from cnai_hub.apps.releases import App, Release, read_app, read_release, release_record
from cnai_hub.apps.server.activity import Activity
from cnai_hub.apps.server.gate import gated, identity
from cnai_hub.apps.server.kernels import ViewerKernels
from cnai_hub.apps.server.messages import ALLOWED, MOST_MESSAGE_BYTES, MOST_UPLOAD_BYTES, ViewerConnection
from cnai_hub.apps.server.room import MOST_PAGES, most_pages

IDLE_SECONDS = 600
"""A kernel without an open page is shut down after this time."""


class OwnKernel(KernelHandler):
    """Handler by which a page queries its kernel, but can't stop or change it."""

    SUPPORTED_METHODS = ("GET", "HEAD", "OPTIONS")


class AppServer(Voila):
    """Voila behind the gate."""

    def __init__(self, *, hub_auth: HubOAuth, activity: Activity, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activity = activity
        self.identity_provider_class = identity(hub_auth)
        self.authorizer_class = JupyterHubAuthorizer
        self.kernel_websocket_connection_class = ViewerConnection

    @default("config_file_paths")
    def _no_config_files(self) -> list[str]:
        """Return no paths, so that files in the account's home or the working folder don't configure the server."""
        return []

    def setup_template_dirs(self) -> None:
        """Add our page before the template that it extends, and MathJax after Voila's own files."""
        super().setup_template_dirs()
        self.template_paths.insert(0, str(paths.shipped("templates/voila/cnai")))
        self.static_paths.append(str(STATIC_ASSETS_PATH))

    def init_settings(self) -> Any:
        """Change settings for which Voila has no option."""
        settings = super().init_settings()
        self.kernel_manager.allowed_message_types = list(ALLOWED)
        settings["allow_unauthenticated_access"] = False
        settings["hub_auth"] = self.identity_provider.hub_auth
        settings["touched"] = self.activity.touch
        settings["released_files"] = AllowListFileHandler
        return settings

    def init_handlers(self) -> Any:
        """Put every route behind the gate, except the one that the hub's login redirects to."""
        routes = []
        for pattern, handler, *names in super().init_handlers():
            if handler is JupyterHubOAuthCallbackHandler:
                routes.append((pattern, handler, *names))
            else:
                routes.append((pattern, gated(OwnKernel if handler is KernelHandler else handler), *names))
        return routes

    def listen(self) -> None:
        """Serve until the hub stops this process."""
        reports = asyncio.get_event_loop().create_task(self.activity.report_forever(_interval()))
        try:
            super().listen()
        finally:
            reports.cancel()


def configuration(
    app: App, release: Release, folder: Path, *, url: str, prefix: str, apps_url: str, pages: int = MOST_PAGES
) -> Config:
    """Return Voila's configuration for one release, with at most `pages` open pages; a pure function."""
    address = urlparse(url)
    files = folder / "releases" / str(release.number) / "files"
    shown = {
        "title": app.title,
        "author": app.owner,
        "date": datetime.fromtimestamp(release.created, UTC).strftime("%d %B %Y").lstrip("0"),
        "version": release.number,
        "apps_url": apps_url,
        "most_upload_bytes": MOST_UPLOAD_BYTES,
    }
    return Config(
        {
            **waking(),
            "Voila": {
                "ip": address.hostname,
                "port": address.port,
                "port_retries": 0,  # the hub expects the server on this port
                "base_url": prefix,
                "server_url": prefix,
                "root_dir": str(files),
                "notebook_path": str(files / release.notebook),
                "open_browser": False,
                "tornado_settings": {
                    "static_url_prefix": f"{prefix}static/",
                    "websocket_max_message_size": MOST_MESSAGE_BYTES,
                },
            },
            "VoilaConfiguration": {
                "template": "lab",
                "theme": "light",  # the page itself turns dark if the viewer's system is
                "allow_template_override": "NO",
                "allow_theme_override": "NO",
                "show_tracebacks": False,
                "strip_sources": True,
                "extension_allowlist": frontends.served(),
                "multi_kernel_manager_class": ViewerKernels,
                "page_config_hook": local_formulas,
                "prelaunch_hook": partial(without_title, title=app.title),
                "resources": {"cnai": shown},
            },
            "VoilaExecutor": {"cell_error_instruction": "Its author learns why by publishing it again."},
            # A restarted kernel has none of the page's widgets, so a page whose kernel dies has ended.
            "KernelRestarter": {"restart_limit": 0},
            "ViewerKernels": {
                "cull_idle_timeout": IDLE_SECONDS,
                "cull_interval": 60,
                "most_pages": pages,
                "release": str(release_record(folder, release.number)),
            },
        }
    )


def local_formulas(page_config: dict[str, object], *, base_url: str, **_: Any) -> dict[str, object]:
    """Load MathJax from this server; by default Voila loads it from a CDN."""
    return {
        **page_config,
        "fullMathjaxUrl": f"{base_url}voila/static/MathJax.js",
        "mathjaxConfig": "TeX-AMS-MML_HTMLorMML-full,Safe",
    }


def without_title(_: Any, *, notebook: Any, title: str, **__: Any) -> Any:
    """Remove the notebook's first heading if it repeats the title in the page's header."""
    first = next((cell for cell in notebook.cells if cell.source.strip()), None)
    if first is not None and first.cell_type == "markdown":
        heading, _newline, rest = first.source.lstrip().partition("\n")
        if heading.lstrip("# ").strip() == title and heading.startswith("#"):
            first.source = rest
    return notebook


def _interval() -> float:
    return float(os.environ.get("JUPYTERHUB_ACTIVITY_INTERVAL") or 300)


def main() -> None:
    """Serve the current release of the app whose folder the command line names."""
    folder = Path(sys.argv[1])
    try:
        app = read_app(folder)
        release = read_release(folder, app.current) if app else None
    except HubError as error:
        sys.exit(str(error))
    if app is None or release is None:
        sys.exit(f"{folder} has no release; publish the notebook again")
    conditions.respect_modes()
    # Remove the tokens from the environment first, because Voila copies it into every kernel.
    token = os.environ.pop("JUPYTERHUB_API_TOKEN")
    os.environ.pop("JPY_API_TOKEN", None)
    prefix = os.environ["JUPYTERHUB_SERVICE_PREFIX"]
    server = AppServer(
        hub_auth=HubOAuth(api_token=token),
        activity=Activity(os.environ["JUPYTERHUB_ACTIVITY_URL"], token, app.server_name),
        config=configuration(
            app,
            release,
            folder,
            url=os.environ["JUPYTERHUB_SERVICE_URL"],
            prefix=prefix,
            apps_url=os.environ.get("JUPYTERHUB_BASE_URL", "/") + "services/apps/",
            # The hub sets MEM_LIMIT if it limits the memory of servers.
            pages=most_pages(float(os.environ.get("MEM_LIMIT") or psutil.virtual_memory().total)),
        ),
    )
    server.initialize([])
    server.start()
