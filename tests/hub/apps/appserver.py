"""A real app server as its spawner starts it, and the one part of a hub that it calls, which identifies tokens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
from nbformat import write
from nbformat.v4 import new_code_cell, new_notebook

from cnai_hub.apps.releases import App, Release, Store
from hub.apps.wire import PATIENCE_SECONDS
from hub.realhub import CHECKOUT, free_port, until

PATH = "/user/ada/app-demo/"
SCOPE = "access:servers!server=ada/app-demo"


class _Hub(BaseHTTPRequestHandler):
    """A token is the name of a user who may open the app."""

    def do_GET(self):
        user = self.headers["Authorization"].removeprefix("token ")
        self._answer({"kind": "user", "name": user, "admin": False, "groups": [], "scopes": [SCOPE]})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({})

    def _answer(self, model):
        body = json.dumps(model).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def serving(home, source, **environment):
    """Serve a notebook of one cell; yield a function that opens a client for an account."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "cnai_hub.apps.server", str(_published(home, source))]
        given = _environment(f"http://127.0.0.1:{hub.server_port}/hub/api", url) | environment
        with (home / "server.log").open("wb") as log:
            server = subprocess.Popen(
                command, env=os.environ | given | {"CNAI_HOME": str(home)}, stdout=log, stderr=log, cwd=CHECKOUT
            )
        try:
            until(lambda: _answers(url), "the app server answers", PATIENCE_SECONDS)
            yield lambda account: httpx.Client(
                base_url=url, headers={"Authorization": f"token {account}"}, timeout=PATIENCE_SECONDS
            )
        finally:
            server.terminate()
            server.wait(PATIENCE_SECONDS)
            hub.shutdown()


def _environment(api, url):
    return {
        "JUPYTERHUB_API_TOKEN": "server",
        "JUPYTERHUB_API_URL": api,
        "JUPYTERHUB_ACTIVITY_URL": f"{api}/users/ada/activity",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-ada-app-demo",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": json.dumps([SCOPE]),
        "JUPYTERHUB_OAUTH_SCOPES": json.dumps([SCOPE]),
        "JUPYTERHUB_SERVICE_PREFIX": PATH,
        "JUPYTERHUB_SERVICE_URL": url + PATH,
    }


def _answers(url):
    try:
        return httpx.get(url + PATH, headers={"Sec-Fetch-Mode": "cors"}).status_code == 403
    except httpx.HTTPError:
        return False


def _published(home, source):
    store = Store(home / "apps")
    now = time.time()
    with store.staging("ada", "demo") as stage:
        (stage / "files").mkdir()
        write(new_notebook(cells=[new_code_cell(source)]), stage / "files" / "demo.ipynb")
        app = App(owner="ada", slug="demo", title="Demo", created=now, published=now, current=1)
        store.commit(stage, app, Release(number=1, notebook="demo.ipynb", author="ada", created=now))
    return store.folder("ada", "demo")
