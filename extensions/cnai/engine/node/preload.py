"""Starts the forkserver that imports torch, the longest part of a node's start; must run before other imports."""

import multiprocessing
import os
from multiprocessing import forkserver

from cnai import programs


def warm_up() -> None:
    """Start the forkserver, which imports torch in the background; returns at once."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch reads it at import; ranks get their own count
    multiprocessing.set_forkserver_preload([programs.FORKSERVER_PRELOAD])
    forkserver.ensure_running()
