"""A program that writes every trait of its process that a fork could have inherited."""

import asyncio
import ctypes
import faulthandler
import gc
import json
import locale
import logging
import multiprocessing
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import numpy as np
import torch
import torch._dynamo
import torch.distributed.checkpoint.state_dict
import torch.distributed.elastic.agent.server.local_elastic_agent


def prctl(option):
    found = ctypes.c_int()
    ctypes.CDLL(None).prctl(option, ctypes.byref(found))
    return found.value


def stream(name):
    found = getattr(sys, name)
    return found.name, found.mode, found.encoding, found.errors, found.write_through, found.fileno()


def opened():
    found = {fd: fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()}
    return sorted(str(file).partition(":")[0] for fd, file in found.items() if int(fd.name) > 2)


status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
main, names = (
    sys.modules["__main__"],
    ("", "torch", "torch.distributed", "torch.distributed.fsdp", "asyncio", "distributed"),
)
process = multiprocessing.current_process()
server, tracker = forkserver._forkserver, resource_tracker._resource_tracker
traits = {
    "sys.argv": sys.argv[1:],
    "sys.path": sys.path,
    "current folder": str(Path.cwd()),
    "umask": status["Umask"],
    "limits": [resource.getrlimit(each) for each in range(16)],
    "nice, affinity, oom score": [os.nice(0), *os.sched_getaffinity(0), Path("/proc/self/oom_score_adj").read_text()],
    "signal handlers": {
        n: str(getattr(signal.getsignal(n), "__name__", signal.getsignal(n))) for n in range(1, 65) if n not in (32, 33)
    },
    "ignored and blocked signals": [status["SigIgn"], status["SigBlk"]],
    "wakeup fd, timer": [signal.set_wakeup_fd(-1), signal.getitimer(signal.ITIMER_REAL)],
    "signal at the parent's death": prctl(2),
    "subreaper": prctl(37),
    "session and group": [os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid()],
    "open files": opened(),
    "streams": {name: stream(name) for name in ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")},
    "locale": [locale.setlocale(locale.LC_ALL), locale.getpreferredencoding(), sys.getfilesystemencoding()],
    "time zone": time.tzname,
    "warnings": [str(each) for each in warnings.filters],
    "loggers": {
        n: [logging.getLogger(n).level, [type(h).__name__ for h in logging.getLogger(n).handlers]] for n in names
    },
    "__main__": [
        getattr(main, name, None) for name in ("__name__", "__spec__", "__package__", "__doc__", "__annotations__")
    ]
    + [type(vars(main)["__builtins__"]).__name__],
    "faulthandler": faulthandler.is_enabled(),
    "garbage collector": [gc.isenabled(), gc.get_threshold(), gc.get_debug(), len(gc.callbacks)],
    "frozen objects": gc.get_freeze_count() > 0,
    "asyncio": type(asyncio.get_event_loop_policy()).__name__,
    "threads": sorted(each.name for each in threading.enumerate()),
    "main thread": [
        threading.current_thread() is threading.main_thread(),
        threading.main_thread().native_id == os.getpid(),
    ],
    "multiprocessing": [
        process.name,
        type(process).__name__,
        str(multiprocessing.parent_process()),
        process._identity,
        multiprocessing.get_start_method(allow_none=True),
        multiprocessing.process.ORIGINAL_DIR,
    ],
    "multiprocessing's servers": [tracker._fd, tracker._pid, server._forkserver_address, server._preload_modules],
    "hooks": [
        sys.excepthook is sys.__excepthook__,
        sys.displayhook is sys.__displayhook__,
        sys.gettrace(),
        sys.getprofile(),
    ],
    "Python's limits": [
        sys.getrecursionlimit(),
        sys.getswitchinterval(),
        threading.stack_size(),
        sys.dont_write_bytecode,
    ],
    "folder for temporary files": tempfile.gettempdir(),
    "socket timeout": socket.getdefaulttimeout(),
    "numpy": [np.geterr(), np.get_printoptions()["precision"]],
    "torch": {
        "defaults": [str(torch.get_default_dtype()), str(torch.get_default_device())],
        "modes": [torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()],
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "numbers": [torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()],
        "backends": [torch.backends.mkldnn.enabled, torch.backends.cudnn.benchmark, torch.backends.quantized.engine],
        "distributed": [torch.distributed.is_initialized(), str(torch.distributed.get_debug_level())],
        "CUDA": torch.cuda.is_initialized(),
        "sharing": torch.multiprocessing.get_sharing_strategy(),
        "print options": str(torch._tensor_str.PRINT_OPTS),
    },
}
if __name__ == "__main__":
    Path(os.environ["TRAITS"] + os.environ["RANK"]).write_text(json.dumps(traits, default=str))
