"""Descendants: ends what ranks started, wherever it went in the tree of processes.

A process that adopts becomes the parent of every orphan below it, also of daemons with a session of their own, which no
list of pids and no process group would name. Agents, the nodes and the process that keeps a node adopt: whichever of
them is killed, the next one above gets what is left.
"""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import psutil

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
GRACE_SECONDS = 1.0
"""Time between SIGTERM and SIGKILL; multiprocessing's trackers of shared memory tidy up in milliseconds."""
GIVE_UP_SECONDS = 5.0
"""A process in uninterruptible sleep, or one that became another account's, may stay."""
POLL_SECONDS = 0.01


def adopt() -> None:
    """Become the parent of all future orphans below this process."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end(patience_seconds: float = 0, chosen: Callable[[int], bool] = lambda _: True) -> list[str]:
    """End the children that `chosen` accepts by pid, and all below them; return the command lines of those it ended.

    Waits `patience_seconds` for them to end by themselves, then sends SIGTERM, then SIGKILL. Takes one system call if
    there are no children.
    """
    asked: dict[psutil.Process, str] = {}
    begin = time.monotonic()
    while below := _below(chosen):
        late = time.monotonic() - begin - patience_seconds
        if late > GRACE_SECONDS + GIVE_UP_SECONDS:
            break
        for process in below if late >= 0 else ():
            with suppress(OSError, _error()):
                if process not in asked:
                    asked[process] = " ".join(process.cmdline()) or process.name()
                    process.terminate()
                elif late > GRACE_SECONDS:
                    process.kill()
        time.sleep(POLL_SECONDS)
    return list(asked.values())


def reap(spared: set[int]) -> None:
    """Collect adopted processes that have ended, except for the spared pids."""
    with suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid not in spared:
            os.waitpid(ended.si_pid, 0)


def _below(chosen: Callable[[int], bool]) -> list[psutil.Process]:
    """Return the living descendants, parents first; collects children that have ended."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []
    import psutil

    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with suppress(OSError, psutil.Error):
            if not chosen(child.pid):
                continue
            if child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)
            else:
                found += [child, *child.children(recursive=True)]
    return found


def _error() -> type[Exception]:
    import psutil

    return psutil.Error
