"""The file that says whether the local engine runs, and at which address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnai.backends.credentials import FILE, Credentials
from cnai.paths import engine_dir

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalEngine(Credentials):
    """engine.json of the local engine, with its process; the address is "" while the engine shuts down."""

    pid: int
    started: float
    """When the process was created, in seconds since 1970 (UTC), because pids are reused."""
    ends_by: float = 0.0
    """When an engine that shuts down has ended its ranks, in seconds since 1970 (UTC)."""


def status_file() -> Path:
    """Return the path of the file, which only its owner can read; the file exists while the engine runs."""
    return engine_dir() / FILE
