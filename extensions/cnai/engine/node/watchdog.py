"""Watchdog: ends a child process with its parent, even if the parent is killed."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing import connection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ORPHANED = 113


def end_with_parent(first: Callable[[], None] = lambda: None) -> int:
    """Exit this process as soon as the process that started it ends, after calling `first` in a thread.

    Returns the file descriptor that it watches.

    torch's own PR_SET_PDEATHSIG is not enough: it sends SIGINT, which a rank stuck in C++ ignores, and it is bound to
    the forkserver instead of the process that asked for the child.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "only for children of multiprocessing"

    def watch() -> None:
        connection.wait([parent.sentinel])
        try:
            first()
        finally:
            os._exit(ORPHANED)

    threading.Thread(target=watch, name="cnai-watchdog", daemon=True).start()
    return parent.sentinel
