"""The file in which the local engine says that it runs, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnai.backends.credentials import FILE, Credentials
from cnai.paths import engine_dir

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalEngine(Credentials):
    """engine.json of the engine of this machine, which is a process; while the engine leaves, its address is ""."""

    pid: int
    started: float
    """When the process was created, in seconds since 1970 (UTC): a pid alone may be another process's by now."""


def status_file() -> Path:
    """Return the file, readable for its owner only; it exists while the engine runs."""
    return engine_dir() / FILE
