"""Questions: routes of Dask's HTTP server for the few questions that a cluster's operator asks a scheduler.

Plain JSON without credentials, because the operator can't hold those of every tenant; a network policy limits access.
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
    """The time since which no run is active."""

    def get(self) -> None:
        """Answer in seconds since 1970, 0 while a run is active."""
        self.write({"idle_since": self.supervisor.idle_since()})


class Retire(_Question):
    """The nodes that can be removed."""

    def post(self) -> None:
        """Answer with all nodes by address, removable nodes first; `{"n": 2}` says how many will be removed."""
        number = _number(self.request.body)
        if number is None:
            self.set_status(400)
            self.write({"error": 'the body must be {"n": <number of nodes>}'})
        else:
            self.write(self.supervisor.retire(number))


def _number(body: bytes) -> int | None:
    try:
        question: Any = json.loads(body)
        number = question["n"]
    except (ValueError, KeyError, TypeError):
        return None
    return number if type(number) is int and number >= 0 else None


routes: list[tuple[str, type, dict[str, str]]] = [
    ("/api/v1/check_idle", Idle, {}),
    ("/api/v1/retire_workers", Retire, {}),
]
