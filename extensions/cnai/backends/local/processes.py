"""Processes: checks whether a process is alive, and ends it with all its children."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

CHILD_SECONDS = 2.0
TICK_SECONDS = 0.05


def alive(process: psutil.Process) -> bool:
    """Tell whether a process runs; a zombie, which its parent has not reaped yet, doesn't."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def end(process: psutil.Process, seconds: float, busy_until: Callable[[], float] = lambda: 0.0) -> None:
    """Send SIGTERM to a process, wait up to `seconds`, then kill it and its remaining children.

    The wait begins when the process is no longer busy, on the monotonic clock.
    """
    below = process.children(recursive=True)
    process.terminate()
    while alive(process) and time.monotonic() < busy_until():
        time.sleep(TICK_SECONDS)
    _outlast([process], seconds)
    _outlast(below, CHILD_SECONDS)


def _outlast(processes: list[psutil.Process], seconds: float) -> None:
    """Wait up to `seconds` for processes to end, then kill the rest."""
    deadline = time.monotonic() + seconds
    while any(map(alive, processes)) and time.monotonic() < deadline:
        time.sleep(TICK_SECONDS)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
