"""Ports of the hub: the requested public port, and internal ports that stay the same between starts if possible."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnai import environment
from cnai.errors import HubError
from cnai.records import Record
from cnai.tables import Mistake

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports(Record):
    """The internal ports of the last start; 0 if unknown."""

    hub: int = 0
    proxy: int = 0
    public: int = 0


def is_free(port: int) -> bool:
    """Tell whether a process could listen on this port of the loopback interface now."""
    with socket.socket() as probe:
        # Without this option, a port counts as taken for about a minute after its last connection closed.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except (OSError, OverflowError):  # OverflowError: the number is not a port
            return False
    return True


def claim(port: int) -> int:
    """Return the public port; HubError if it can't be used."""
    if not 1024 <= port <= 65535:
        raise HubError(f"port {port} can't be used; choose one between 1024 and 65535 with {environment.PORT}")
    if not is_free(port):
        raise HubError(
            f"port {port} is in use by another program; choose another one: {environment.PORT}={port + 1} make run"
        )
    return port


def internal(state: Path, names: tuple[str, ...]) -> dict[str, int]:
    """Return a free port for each name, the same as last time if possible.

    Notebook servers outlive a hub that crashed, and look for the hub at its old address.
    """
    path = state / "ports.json"
    known = _last(path)
    chosen: dict[str, int] = {}
    for name in names:
        port = getattr(known, name)
        chosen[name] = port if port and is_free(port) else _any_free(set(chosen.values()))
    path.write_text(json.dumps(chosen))
    return chosen


def _last(path: Path) -> Ports:
    with suppress(FileNotFoundError, Mistake):
        return Ports.from_json(path.read_bytes())
    return Ports()


def _any_free(taken: set[int]) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port: int = probe.getsockname()[1]
        if port not in taken:
            return port
