"""Questions: the few that the operator of a cluster asks a scheduler, as routes for Dask's HTTP server.

Plain JSON without credentials, as the operator can hold none of every tenant; a network policy says who may ask.
"""

from __future__ import annotations

import json
from typing import Any

from distributed.http.utils import RequestHandler

from cnai.engine.control.supervisor import Supervisor


class _Question(RequestHandler):
    @property
    def supervisor(self) -> Supervisor:
        found: Supervisor = self.server.plugins[Supervisor.name]
        return found


class Idle(_Question):
    """Since when no run goes on."""

    def get(self) -> None:
        """Answer in seconds since 1970, 0 while one does."""
        self.write({"idle_since": self.supervisor.idle_since()})


class Retire(_Question):
    """Which nodes can go."""

    def post(self) -> None:
        """Answer with all nodes by address, those that can go first; `{"n": 2}` says how many will."""
        number = _number(self.request.body)
        if number is None:
            self.set_status(400)
            self.write({"error": 'the body must be {"n": <number of nodes>}'})
        else:
            self.write(self.supervisor.retire(number))


def _number(body: bytes) -> int | None:
    try:
        asked: Any = json.loads(body)
        number = asked["n"]
    except (ValueError, KeyError, TypeError):
        return None
    return number if type(number) is int and number >= 0 else None


routes: list[tuple[str, type, dict[str, str]]] = [
    ("/api/v1/check_idle", Idle, {}),
    ("/api/v1/retire_workers", Retire, {}),
]
