"""Inherited: turns a forked rank into what Python starts with, where its state would show that it was forked."""

from __future__ import annotations

import ctypes
import faulthandler
import io
import locale
import logging
import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

LOGGER = "torch.distributed"
"""The logger that agents silence."""
PR_SET_PDEATHSIG = 1  # linux/prctl.h
_OF_PYTHON: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGPIPE: signal.SIG_IGN,
    signal.SIGXFSZ: signal.SIG_IGN,
}
"""The handlers that Python installs when it starts."""
_MainProcess: Any = type(multiprocessing.current_process())
"""The class of the forkserver's process; multiprocessing deletes its name."""
_ERRORS = getattr(sys.stdout, "errors", None) or "strict"
"""Python's choice by locale."""
PATH = [entry for entry in sys.path if entry not in {"", multiprocessing.process.ORIGINAL_DIR}]  # type: ignore[attr-defined]
"""`sys.path` without the folder in which the node was started; Dask adds another one in the node."""
_OF_LOCALE = {"LANG", "LC_ALL", "LC_CTYPE"}


def drop(log: Path, cwd: str, kept: set[int]) -> None:
    """Drop the state of the forkserver and the agent; `log` receives the output, `kept` are file descriptors."""
    os.setsid()  # as torchrun does
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)  # torch asks for SIGINT; the watchdog ends this rank
    _signals()
    _streams(log)
    _let_go({0, 1, 2, *kept})
    if Path(cwd).is_dir():
        os.chdir(cwd)
    _multiprocessing()
    sys.argv[:] = [""]
    if _OF_LOCALE & os.environ.keys():
        with suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, "")
    logging.getLogger(LOGGER).setLevel(logging.NOTSET)
    _libraries()


def _signals() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        default = _OF_PYTHON.get(number, signal.SIG_DFL)
        if signal.getsignal(number) not in {default, None}:
            signal.signal(number, default)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _streams(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, fd in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, fd)
    sys.stdin = sys.__stdin__ = _stream(0, "<stdin>", "r", _ERRORS)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _stream(1, "<stdout>", "w", _ERRORS)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2, "<stderr>", "w", "backslashreplace")  # type: ignore[misc]
    faulthandler.enable(sys.stderr)
    faulthandler.register(signal.SIGUSR1, sys.stderr)  # the supervisor requests the stacks of a stalled rank


def _stream(fd: int, name: str, mode: str, errors: str) -> io.TextIOWrapper:
    """Return a standard stream as `python -u` opens it."""
    raw: Any = open(fd, f"{mode}b", 0, closefd=False)  # noqa: SIM115
    raw.name = name
    buffer = io.BufferedReader(raw) if mode == "r" else raw
    stream = io.TextIOWrapper(buffer, encoding="utf-8", errors=errors, write_through=True)
    stream.mode = mode  # type: ignore[misc]
    return stream


def _let_go(kept: set[int]) -> None:
    """Let go of the lines of the node, the agent and the other ranks; a child of this rank would keep them open.

    Their numbers stay taken: objects that own them will close them, and must not close a file of the program.
    """
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if fd not in {nothing, *kept}:
            with suppress(OSError):  # the listing's own
                os.fstat(fd)
                os.dup2(nothing, fd, inheritable=False)
    os.close(nothing)


def _multiprocessing() -> None:
    """Make this the main process of its own children, with its own servers."""
    process: Any = multiprocessing.process
    process._current_process, process._parent_process = _MainProcess(), None
    process.ORIGINAL_DIR = str(Path.cwd())
    multiprocessing.set_start_method(None, force=True)
    servers: Any = (forkserver._forkserver, resource_tracker._resource_tracker)
    for server in servers:
        server.__init__()


def _libraries() -> None:
    import numpy as np
    import torch

    # `random` seeds itself after a fork, and CUDA's generators start in the rank.
    np.random.seed()
    torch.default_generator.seed()
    with suppress(ValueError):  # a list for nested regions, or none
        torch.set_num_threads(max(1, int(os.environ["OMP_NUM_THREADS"].partition(",")[0])))
