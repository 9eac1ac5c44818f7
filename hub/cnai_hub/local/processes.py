"""Processes of one workbench: only one per home, and none left when it ends.

Everything that the hub starts carries `CNAI_WORKBENCH=<home>` in its environment, whichever way it was started.
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
    """Hold the home's lock, or raise with who holds it; the lock ends with this process, however it ends."""
    path = state / "workbench.lock"
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HubError(_taken(state)) from None
        lock.truncate(0)
        lock.write(Holder(pid=os.getpid(), url=url).to_json())
        lock.flush()
        yield
        lock.truncate(0)


def running(state: Path) -> Holder | None:
    """Return the workbench that runs in this home."""
    try:
        with (state / "workbench.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(state)
    except OSError:
        pass
    return None


def _holder(state: Path) -> Holder | None:
    """Return who has written into the lock; nobody for a moment at its start and its end."""
    with suppress(Mistake):
        return Holder.from_json((state / "workbench.lock").read_bytes())
    return None


def _taken(state: Path) -> str:
    known = _holder(state)
    where = f" at {known.url} (pid {known.pid})" if known else ""
    return f"the workbench of {state.parent} is already running{where}; use it, or press Ctrl-C where it was started"


def marked(home: Path) -> list[psutil.Process]:
    """Return the processes that a hub of this home started."""
    others = (process for process in psutil.process_iter() if process.pid != os.getpid())
    return [process for process in others if _environment(process).get(environment.WORKBENCH.name) == str(home)]


def left_by_a_crash(home: Path) -> list[psutil.Process]:
    """Return hub, proxy, service and apps that outlived their launcher.

    Notebook servers aren't among them, nor is the engine: the next hub takes over the ones, runs go on in the other.
    """
    return [process for process in marked(home) if any(_is_the_hubs(word) for word in _command(process))]


def _is_the_hubs(word: str) -> bool:
    return word in {"jupyterhub", programs.APPS_SERVICE, programs.APP_SERVER} or word.endswith(_PROXY)


def _command(process: psutil.Process) -> list[str]:
    try:
        words: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return words


def end(processes: list[psutil.Process]) -> None:
    """Ask processes to end, and kill those that don't."""
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
