"""The process of the apps service, which the hub starts and stops. It never runs notebooks itself."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from urllib.parse import urlparse

import jinja2
from jupyterhub.services.auth import HubAuth, HubOAuthCallbackHandler
from jupyterhub.utils import url_path_join
from tornado.httpserver import HTTPServer
from tornado.web import Application

from cnai import catalog, environment, paths
from cnai.publication import APPS, CHECK, RELEASES
from cnai_hub.apps.releases import Store
from cnai_hub.apps.service import api, pages
from cnai_hub.apps.service.hub import Hub
from cnai_hub.apps.service.publisher import Publisher, forever
from cnai_hub.apps.service.terms import Terms

_FOLLOW_SECONDS = 60.0
# The limit for all requests except uploads, which are accepted only from authors.
_LONGEST_REQUEST = 64 * 2**10
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def application(publisher: Publisher, prefix: str) -> Application:
    """Return the service's routes under `prefix`."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(paths.shipped("templates/hub")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    # Don't use `.instance()`: it may return the pages' HubOAuth, which accepts cookies.
    token = {"publisher": publisher, "token_auth": HubAuth()}
    page = {"publisher": publisher, "templates": templates}
    app = r"([^/]+)/([a-z0-9-]+)"
    routes = [
        ("", pages.Index, page),
        (f"open/{app}", pages.Index, page),
        (f"state/{app}", pages.State, page),
        (f"start/{app}", pages.Open, page),
        (f"unpublish/{app}", pages.Unpublish, page),
        (CHECK, api.Check, token),
        (APPS, api.Apps, token),
        (rf"{APPS}/([^/]+)", api.OneApp, token),
        (rf"{RELEASES}/([^/]+)", api.CurrentRelease, token),
        ("oauth_callback", HubOAuthCallbackHandler, {}),
    ]
    return Application(
        [(url_path_join(prefix, path), handler, names) for path, handler, names in routes],
        cookie_secret=os.urandom(32),
        xsrf_cookies=True,
        prefix=prefix,
    )


async def serve() -> None:
    """Serve until SIGTERM."""
    url = urlparse(os.environ["JUPYTERHUB_SERVICE_URL"])
    hub = Hub(os.environ["JUPYTERHUB_API_URL"], os.environ["JUPYTERHUB_API_TOKEN"])
    terms = Terms(catalog.load(), in_pods=environment.APPS_IN_PODS.get())
    publisher = Publisher(Store(paths.home() / "apps"), hub, terms)
    server = HTTPServer(
        application(publisher, os.environ["JUPYTERHUB_SERVICE_PREFIX"]),
        max_body_size=_LONGEST_REQUEST,
    )
    # On a cluster the proxy is in another pod, and the name in the url may be a Service's, which can't be bound.
    server.listen(url.port or 0, url.hostname if url.hostname in _LOOPBACK else "")
    follower = asyncio.create_task(forever(publisher, _FOLLOW_SECONDS))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    follower.cancel()


def main() -> None:
    """Run the service, configured by the environment variables that the hub sets."""
    logging.basicConfig(level=logging.WARNING, format="[apps] %(message)s")
    asyncio.run(serve())
