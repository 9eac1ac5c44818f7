"""The apps service reads the hub's answers strictly as records, and ignores fields that it doesn't need."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cnai.errors import HubError
from cnai_hub.apps.service.hub import Hub


@pytest.fixture
def asked():
    """Ask a hub that answers paths with these objects, and everything else with 404."""
    answers = {}

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path in answers else 404)
            self.end_headers()
            self.wfile.write(json.dumps(answers.get(self.path)).encode())

        def log_message(self, *_):
            pass

    def asked(question, paths):
        answers.update(paths)

        async def ask():  # the client belongs to one loop
            return await question(Hub(f"http://127.0.0.1:{server.server_port}", "token"))

        return asyncio.run(ask())

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever).start()
        yield asked
        server.shutdown()


def page(*names, following=None):
    shares = [{"server": {"name": "app-a"}, "user": name and {"name": name, "kind": "user"}} for name in names]
    return {"items": shares, "_pagination": {"offset": 0, "limit": 2, "total": 3, "next": following}}


def test_shares_are_read_from_all_pages_and_those_of_groups_are_nobodys(asked):
    paths = {
        "/shares/ada/app-a?offset=0": page("bob", None, following={"offset": 2}),
        "/shares/ada/app-a?offset=2": page("eve"),
    }
    assert asked(lambda hub: hub.shared_with("ada", "app-a"), paths) == {"bob", "eve"}


@pytest.mark.parametrize(
    ("model", "state"),
    [
        ({"ready": True, "pending": None, "name": "app-a", "url": "/x"}, "running"),
        ({"ready": False, "pending": "spawn"}, "starting"),
        ({"ready": True, "pending": "stop"}, "stopping"),
        ({"ready": False, "pending": None, "stopped": True}, "stopped"),
    ],
)
def test_a_server_is_what_the_hub_says(asked, model, state):
    assert asked(lambda hub: hub.state_of("ada", "app-a"), {"/users/ada/servers/app-a": model}) == state


def test_a_server_that_the_hub_does_not_know_is_stopped(asked):
    assert asked(lambda hub: hub.state_of("ada", "app-b"), {}) == "stopped"
    assert asked(lambda hub: hub.groups_of("nobody"), {}) is None


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ([], r"must be a table; given: \[\]"),
        ({"name": "ada"}, "groups is missing"),
        ({"groups": [1]}, r"groups\[0\] must be text; given: 1"),
    ],
)
def test_another_answer_is_one_sentence(asked, model, why):
    told = rf"the hub's answer does not match JupyterHub 6 \({why}\); update cnai or the hub"
    with pytest.raises(HubError, match=told):
        asked(lambda hub: hub.groups_of("ada"), {"/users/ada": model})
