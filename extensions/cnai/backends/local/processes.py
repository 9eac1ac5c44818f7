"""Processes: whether one is alive, and its end with all that it started."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil

CHILD_SECONDS = 2.0


def alive(process: psutil.Process) -> bool:
    """Tell whether a process runs; a zombie, whose parent hasn't looked yet, doesn't."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def end(process: psutil.Process, seconds: float) -> None:
    """Ask a process to end within so many seconds, then kill it and all that it leaves behind."""
    below = process.children(recursive=True)
    process.terminate()
    _outlast([process], seconds)
    _outlast(below, CHILD_SECONDS)


def _outlast(processes: list[psutil.Process], seconds: float) -> None:
    """Wait for the end of processes, and kill those that take longer."""
    deadline = time.monotonic() + seconds
    while any(map(alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
