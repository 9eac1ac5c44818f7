"""The app server: Voila for one release, with the hub's login in the same process.

The spawner runs `python -m cnai_hub.apps.server <folder of the app>`. Viewers press buttons; they don't run code, don't
see sources or tracebacks, and share no kernel.
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
from cnai_hub.apps.channels import waking
from cnai_hub.apps.releases import App, Release, read_app, read_release
from cnai_hub.apps.server.activity import Activity
from cnai_hub.apps.server.gate import gated, identity
from cnai_hub.apps.server.kernels import ViewerKernels
from cnai_hub.apps.server.messages import ALLOWED, ViewerConnection
from cnai_hub.apps.server.room import MOST_PAGES, most_pages

# What draws widgets. JupyterLab plugins that expect a whole JupyterLab break the page.
WIDGETS = ["@voila-dashboards/widgets-manager8", "@jupyter-widgets/jupyterlab-manager", "anywidget"]

IDLE_SECONDS = 600
"""After this long a kernel without an open page is ended."""


class OwnKernel(KernelHandler):
    """A page asks how its kernel is; it may not end or rename it here."""

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
        """Read no configuration of whoever's home or folder this is."""
        return []

    def setup_template_dirs(self) -> None:
        """Put our page in front of the template it extends, and MathJax behind Voila's own files."""
        super().setup_template_dirs()
        self.template_paths.insert(0, str(paths.shipped("templates/voila/cnai")))
        self.static_paths.append(str(STATIC_ASSETS_PATH))

    def init_settings(self) -> Any:
        """Set what Voila has no option for."""
        settings = super().init_settings()
        self.kernel_manager.allowed_message_types = list(ALLOWED)
        settings["allow_unauthenticated_access"] = False
        settings["hub_auth"] = self.identity_provider.hub_auth
        settings["touched"] = self.activity.touch
        settings["released_files"] = AllowListFileHandler
        return settings

    def init_handlers(self) -> Any:
        """Put every route behind the gate, but for the one that the hub's login comes back to."""
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
    """Return Voila's configuration for one release, with at most so many open pages; pure."""
    address = urlparse(url)
    files = folder / "releases" / str(release.number) / "files"
    shown = {
        "title": app.title,
        "author": app.owner,
        "date": datetime.fromtimestamp(release.created, UTC).strftime("%d %B %Y").lstrip("0"),
        "version": release.number,
        "apps_url": apps_url,
    }
    return Config(
        {
            **waking(),
            "Voila": {
                "ip": address.hostname,
                "port": address.port,
                "port_retries": 0,  # on another port the hub wouldn't find it
                "base_url": prefix,
                "server_url": prefix,
                "root_dir": str(files),
                "notebook_path": str(files / release.notebook),
                "open_browser": False,
                "tornado_settings": {"static_url_prefix": f"{prefix}static/"},
            },
            "VoilaConfiguration": {
                "template": "lab",
                "theme": "light",  # the page itself turns dark where the viewer's system is
                "allow_template_override": "NO",
                "allow_theme_override": "NO",
                "show_tracebacks": False,
                "strip_sources": True,
                "extension_allowlist": WIDGETS,
                "multi_kernel_manager_class": ViewerKernels,
                "page_config_hook": local_formulas,
                "prelaunch_hook": partial(without_title, title=app.title),
                "resources": {"cnai": shown},
            },
            "VoilaExecutor": {"cell_error_instruction": "Its author can find the reason by running the notebook."},
            "ViewerKernels": {"cull_idle_timeout": IDLE_SECONDS, "cull_interval": 60, "most_pages": pages},
        }
    )


def local_formulas(page_config: dict[str, object], *, base_url: str, **_: Any) -> dict[str, object]:
    """Take MathJax from this server; by default it comes from a content network."""
    return {
        **page_config,
        "fullMathjaxUrl": f"{base_url}voila/static/MathJax.js",
        "mathjaxConfig": "TeX-AMS-MML_HTMLorMML-full,Safe",
    }


def without_title(_: Any, *, notebook: Any, title: str, **__: Any) -> Any:
    """Drop the notebook's first heading where the page's header says the same."""
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
    # Out of the environment first: Voila copies it into every kernel.
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
            # The hub sets the variable where it limits the memory of servers.
            pages=most_pages(float(os.environ.get("MEM_LIMIT") or psutil.virtual_memory().total)),
        ),
    )
    server.initialize([])
    server.start()
