"""The launcher's client of hub, notebook server and apps service."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from cnai.errors import HubError
from cnai_hub import models

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnai_hub.profiles import Choice

_PATIENCE_SECONDS = 180.0
# The headers that a browser sends when a user follows a link; JupyterHub checks them.
_NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}


class HubClient:
    """The part of the hub's REST API that the launcher may use: the person's servers and their contents."""

    def __init__(self, url: str, person: str, token: str) -> None:
        self.url, self.person, self.token = url, person, token
        self.headers = {"Authorization": f"token {token}"}
        # trust_env: don't send requests between two processes of one machine through a proxy from the environment.
        self._http = httpx.Client(base_url=url, headers=self.headers, timeout=_PATIENCE_SECONDS, trust_env=False)

    def answers(self) -> bool:
        """Tell whether the hub answers."""
        with suppress(httpx.HTTPError):
            return self._http.get("/hub/health").status_code == 200
        return False

    def start(self, server: str = "", choice: Choice | None = None) -> None:
        """Request the start of a server of the person, without waiting, unless it is running or pending."""
        path = f"servers/{server}" if server else "server"
        known = self.server(server)
        if not known.pending and not known.ready:
            options = choice.options() if choice else {}
            self._ask("POST", f"/hub/api/users/{self._person}/{path}", {"user_options": options})

    def server(self, server: str = "") -> models.Server:
        """Return the state of a server of the person; a stopped server is neither ready nor pending."""
        answer = self._ask("GET", f"/hub/api/users/{self._person}")
        return models.read(models.User, answer.content).servers.get(server) or models.Server()

    def wait_ready(self, server: str = "") -> None:
        """Wait until a server answers."""
        wait_until(lambda: self.server(server).ready, f"server {server or 'of ' + self.person} does not answer")

    def in_server(self, method: str, path: str, body: Any = None) -> Any:
        """Call the Jupyter API of the person's server."""
        answer = self._ask(method, f"/user/{self._person}/api/{path}", body)
        return answer.json() if answer.content else None

    @property
    def websocket_url(self) -> str:
        """Address of the person's server for websockets."""
        return f"{self.url.replace('http', 'ws', 1)}/user/{self._person}"

    @property
    def _person(self) -> str:
        return quote(self.person, safe="@~")

    def _ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise HubError(f"the hub does not answer ({type(error).__name__}); its log says why") from None
        if answer.is_error:
            raise HubError(f"the hub refused {method} {path} ({answer.status_code}): {models.reason(answer)}")
        return answer


def follow(link: str) -> httpx.Response:
    """Open a link with a fresh browser session."""
    with _browser() as browser:
        return browser.get(link)


def visit(url: str, path: str, name: str, password: str) -> httpx.Response:
    """Log in, then open a page."""
    with _browser() as browser:
        browser.get(f"{url}/hub/login")
        form = {"username": name, "password": password, "_xsrf": browser.cookies.get("_xsrf", path="/hub/") or ""}
        return browser.post(f"{url}/hub/login", params={"next": path}, data=form)


def _browser() -> httpx.Client:
    return httpx.Client(headers=_NAVIGATION, follow_redirects=True, timeout=_PATIENCE_SECONDS, trust_env=False)


def wait_until(found: Callable[[], Any], otherwise: str) -> Any:
    """Call `found` until it returns a true value, and return the value; HubError after 180 s."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not (value := found()):
        if time.monotonic() > deadline:
            raise HubError(f"{otherwise} after {_PATIENCE_SECONDS:g} s")
        time.sleep(0.1)
    return value
