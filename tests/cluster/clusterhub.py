"""A real hub on this machine whose servers are pods of a real cluster; it has the rights of the hub's account only."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub.realhub import RealHub, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

PASSWORD = "of-tests-only"
CONFIG = Path(__file__).with_name("clusterhub_config.py")


class ClusterHub(RealHub):
    """A hub that pods reach at `address`; everybody logs in with one password."""

    config = CONFIG

    def __init__(
        self, home: Path, settings: Mapping[str, Any], groups: Mapping[str, list[str]], kubeconfig: str, address: str
    ) -> None:
        ports = {"hub": free_port(), "proxy": free_port()}
        given = {"settings": settings, "groups": groups, "address": address, "ports": ports, "password": PASSWORD}
        super().__init__(
            home,
            person=groups["creators"][0],
            CLUSTERHUB=json.dumps(given),
            KUBECONFIG=kubeconfig,
            PYTHONPATH=os.environ.get("PYTHONPATH", ""),
        )

    def password(self, name: str) -> str:
        """Return everybody's password."""
        return PASSWORD

    def start_server(self, api: httpx.Client, name: str, server: str = "", **options: Any) -> httpx.Response:
        """Request a server through the API; the request may be refused, or the start may fail later."""
        path = f"users/{name}/servers/{server}" if server else f"users/{name}/server"
        return api.post(path, json={"user_options": options})

    def progress(self, api: httpx.Client, name: str, server: str = "") -> list[dict[str, Any]]:
        """Return all progress messages of a server's start, until it has started or failed."""
        said = []
        path = f"users/{name}/servers/{server}/progress"
        with api.stream("GET", path, timeout=600) as answer:
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    said.append(json.loads(line[5:]))
        return said
