"""Processes of a workbench: at most one workbench runs per home, and no process is left when it stops.

All processes that the hub starts, directly or not, have `CNAI_WORKBENCH=<home>` in their environment.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from cnai import environment, programs
from cnai.errors import HubError
from cnai.records import Record
from cnai.tables import Mistake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PROXY = "/configurable-http-proxy"
_PATIENCE_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder(Record):
    """The workbench that holds a home's lock."""

    pid: int
    url: str


@contextmanager
def only_one(state: Path, url: str) -> Iterator[None]:
    """Hold the home's lock, until this process ends in any way; HubError names the holder if the lock is taken."""
    path = state / "workbench.lock"
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HubError(_already_running(state)) from None
        lock.truncate(0)
        lock.write(Holder(pid=os.getpid(), url=url).to_json())
        lock.flush()
        yield
        lock.truncate(0)


def running(state: Path) -> Holder | None:
    """Return the workbench that runs in this home, None if there is none."""
    try:
        with (state / "workbench.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(state)
    except OSError:
        pass
    return None


def _holder(state: Path) -> Holder | None:
    """Return the holder in the lock file, which is empty for a moment when a workbench starts and stops."""
    with suppress(Mistake):
        return Holder.from_json((state / "workbench.lock").read_bytes())
    return None


def _already_running(state: Path) -> str:
    known = _holder(state)
    where = f" at {known.url} (pid {known.pid})" if known else ""
    return f"the workbench of {state.parent} is already running{where}; use it, or press Ctrl-C where it was started"


def marked(home: Path) -> list[psutil.Process]:
    """Return the processes that a hub of this home started."""
    others = (process for process in psutil.process_iter() if process.pid != os.getpid())
    return [process for process in others if _environment(process).get(environment.WORKBENCH.name) == str(home)]


def left_by_a_crash(home: Path) -> list[psutil.Process]:
    """Return the processes of hub, proxy, apps service and apps that outlived their launcher.

    Notebook servers and the engine are not included: the next hub takes over the servers, and the engine continues its
    runs.
    """
    return [process for process in marked(home) if any(_belongs_to_hub(word) for word in _command(process))]


def _belongs_to_hub(word: str) -> bool:
    return word in {"jupyterhub", programs.APPS_SERVICE, programs.APP_SERVER} or word.endswith(_PROXY)


def _command(process: psutil.Process) -> list[str]:
    try:
        words: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return words


def end(processes: list[psutil.Process]) -> None:
    """Terminate processes, and kill those that don't exit within 15 s."""
    for process in processes:
        _signal(process.terminate)
    _, alive = psutil.wait_procs(processes, timeout=_PATIENCE_SECONDS)
    for process in alive:
        _signal(process.kill)
    psutil.wait_procs(alive, timeout=_PATIENCE_SECONDS)


def _signal(send: Any) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return {} if process.status() == psutil.STATUS_ZOMBIE else process.environ()
    except psutil.Error:
        return {}
