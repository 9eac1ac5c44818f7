"""A real hub in its own process and folder, for tests: start, log in as people do, ask its API, stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

CHECKOUT = Path(__file__).resolve().parents[2]
CONFIG = CHECKOUT / "hub" / "jupyterhub_config.py"
PERSON = "ada"
GUEST = "guest"
PATIENCE_SECONDS = 180.0

# The headers that a browser sends when a user follows a link; JupyterHub checks them.
_NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(found: Any, what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Call `found` until it returns a true value, and return the value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:g} s: {what}")


class RealHub:
    """A hub below `home`, on loopback; `person` is its administrator."""

    config = CONFIG

    def __init__(self, home: Path, port: int | None = None, person: str = PERSON, **environment: str) -> None:
        self.home, self.port, self.person = home, port or free_port(), person
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home / "hub-test.log"
        self.environment = {**os.environ, **environment, "CNAI_HOME": str(home), "CNAI_PORT": str(self.port)}
        self.environment["CNAI_PERSON"] = person
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> RealHub:
        self.home.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "-f", str(self.config)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(self._answers, "the hub answers")
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-3000:]
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/hub/health").status_code == 200 and self._listening()
        return False

    def _listening(self) -> bool:
        return "JupyterHub is now running" in self.log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """Stop hub, proxy, servers and apps, then the engine that a notebook may have started."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(PATIENCE_SECONDS)
            finally:
                self._process.kill()
        self._process = None
        if (self.home / "engine" / "engine.json").exists():
            command = [sys.executable, "-m", "cnai.faces.cli", "cluster", "stop"]
            subprocess.run(command, env=self.environment, timeout=PATIENCE_SECONDS, check=True, capture_output=True)
        self.log.unlink(missing_ok=True)

    @cached_property
    def secrets(self) -> dict[str, str]:
        secrets: dict[str, str] = json.loads((self.home / "hub" / "credentials.json").read_text())
        return secrets

    def password(self, name: str) -> str:
        return self.secrets["person_password" if name == self.person else "guest_password"]

    def visitor(self) -> httpx.Client:
        """Return a new browser session, not logged in."""
        return httpx.Client(base_url=self.url, headers=_NAVIGATION, follow_redirects=True, timeout=PATIENCE_SECONDS)

    def try_login(self, name: str, password: str, next_url: str = "") -> tuple[httpx.Client, httpx.Response]:
        """Fill in the login form."""
        client = self.visitor()
        client.get("/hub/login")
        form = {"username": name, "password": password, "_xsrf": xsrf(client)}
        return client, client.post("/hub/login", params={"next": next_url} if next_url else None, data=form)

    def login(self, name: str) -> httpx.Client:
        """Return a session that is logged in by password."""
        client, page = self.try_login(name, self.password(name))
        assert page.status_code == 200, (page.status_code, page.url, page.text[:500])
        assert "/hub/login" not in str(page.url), page.text[:500]
        return client

    def api(self, name: str | None = None) -> httpx.Client:
        """Return a client of the hub's REST API with a token of this person."""
        client = self.login(name or self.person)
        made = client.post(
            f"/hub/api/users/{name or self.person}/tokens", headers={"X-XSRFToken": xsrf(client)}, json={}
        )
        assert made.status_code == 201, made.text
        return self.api_with(made.json()["token"])

    def api_with(self, token: str) -> httpx.Client:
        """Return a client of the hub's REST API with this token."""
        return httpx.Client(
            base_url=f"{self.url}/hub/api/", headers={"Authorization": f"token {token}"}, timeout=PATIENCE_SECONDS
        )

    def spawn(self, api: httpx.Client, server: str = "", **options: str) -> httpx.Response:
        """Start a server through the API and wait until it is ready; return the response if the start is refused."""
        path = f"users/{self.person}/servers/{server}" if server else f"users/{self.person}/server"
        answer = api.post(path, json={"user_options": options})
        if answer.status_code < 400:
            until(lambda: self.server(api, server).get("ready"), f"server {server!r} is ready")
        return answer

    def server(self, api: httpx.Client, server: str = "") -> dict[str, Any]:
        """Return the hub's model of a server of the person."""
        model: dict[str, Any] = api.get(f"users/{self.person}").json()["servers"].get(server, {})
        return model

    def stop_server(self, api: httpx.Client, server: str = "") -> None:
        path = f"users/{self.person}/servers/{server}" if server else f"users/{self.person}/server"
        assert api.delete(path).status_code in (202, 204)
        until(lambda: not self.server(api, server), f"server {server!r} is gone")


def xsrf(client: httpx.Client) -> str:
    """Return the XSRF token that JupyterHub requires in a form."""
    return client.cookies.get("_xsrf", path="/hub/") or ""
