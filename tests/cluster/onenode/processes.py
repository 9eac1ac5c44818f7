"""Processes that outlive the command that started them, identified by pid and start time, because pids are reused."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from onenode.place import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from onenode.place import Place

_GRACE_SECONDS = 15.0
_POLL_SECONDS = 0.1
_SETTINGS = {"GOGC": "400"}
"""Go collects garbage when the heap has grown fivefold, not twofold: it uses less CPU time, but more memory."""


def start(place: Place, name: str, command: list[str]) -> bool:
    """Start a component unless it runs; return whether it was started."""
    if running(place, name) is not None:
        return False
    (place.state / "log").mkdir(parents=True, exist_ok=True)
    with log(place, name).open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=place.state,
            env=os.environ | _SETTINGS,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    born = birth(process.pid)
    _file(place, name).parent.mkdir(parents=True, exist_ok=True)
    _file(place, name).write_text(f"{process.pid} {born}")
    return True


def running(place: Place, name: str) -> int | None:
    """Return a component's pid while it runs."""
    try:
        pid, born = _file(place, name).read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid) if birth(int(pid)) == born else None


def stop(place: Place, name: str, grace_seconds: float = _GRACE_SECONDS) -> bool:
    """Stop a component, by force if necessary; return whether it was running."""
    pid = running(place, name)
    if pid is not None:
        end(pid, grace_seconds)
    _file(place, name).unlink(missing_ok=True)
    return pid is not None


def end(pid: int, grace_seconds: float = _GRACE_SECONDS) -> None:
    """Stop a process and wait until it has ended."""
    born = birth(pid)
    for sign, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, _GRACE_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sign)
        deadline = time.monotonic() + seconds
        while birth(pid) == born != "":
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        else:
            return
    raise ClusterError(f"process {pid} does not end, not even by SIGKILL")


def birth(pid: int) -> str:
    """Return the start time of a process in ticks since boot; nothing if it doesn't exist or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def wait(place: Place, name: str, what: str, ready: Callable[[], bool], seconds: float) -> None:
    """Wait for a condition that a component fulfills; the error has the last lines of its log."""
    deadline = time.monotonic() + seconds
    while not ready():
        if running(place, name) is None or time.monotonic() > deadline:
            why = f"nothing after {seconds:.0f} s" if running(place, name) else f"{name} ended"
            tail = "\n".join(log(place, name).read_text(errors="replace").splitlines()[-15:])
            raise ClusterError(f"{what}: {why}; the end of {log(place, name)}:\n{tail}")
        time.sleep(_POLL_SECONDS)


def log(place: Place, name: str) -> Path:
    """Return the path of a component's log."""
    return place.state / "log" / f"{name}.log"


def _file(place: Place, name: str) -> Path:
    return place.state / "run" / f"{name}.pid"
