"""The local engine as its person's processes see it: find it, start it, connect to it, end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

from cnai.backends.local.process import LocalEngine, status_file
from cnai.engine.control.client import EngineClient
from cnai.engine.store import write, writing
from cnai.errors import EngineError
from cnai.paths import compiled_dir, engine_dir, private, store_root

START_SECONDS = 60.0
STOP_SECONDS = 20.0

_connection: EngineClient | None = None
_lock = threading.Lock()


def connect() -> EngineClient:
    """Return the line to this user's engine, started if need be; one per process and address."""
    global _connection
    with _lock:
        found = running()
        if _connection is not None:
            if found is not None and _connection.alive and _connection.address == found.address:
                return _connection
            _hang_up()
        found = found or _start()
        _connection = EngineClient(found.address, found.security())
        return _connection


def running() -> LocalEngine | None:
    """Return the engine that runs, None if none does."""
    import psutil

    try:
        found = LocalEngine.from_json(status_file().read_text())
        process = psutil.Process(found.pid)
        # Started at another time: another process, which got the pid of a dead engine. A zombie is dead too.
        alive = process.create_time() == found.started and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, psutil.Error):
        return None
    return found if alive else None


def launch() -> None:
    """Start the engine's processes without waiting for them; harmless if they run."""
    if running():
        return
    folder = engine_dir()
    with writing(folder):
        private(folder)
        private(store_root())
        write(folder / "starting", str(os.getpid()))  # a full disk shows here, not in a process nobody sees
        log = (folder / "engine.log").open("ab")
    with log:
        subprocess.Popen(
            [sys.executable, "-c", "from cnai.backends.local.engine import main; main()"],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=_environment(),
        )


def _environment() -> dict[str, str]:
    """Return the environment without what belongs to the kernel that happens to come first."""
    dropped = {"JPY_PARENT_PID", "JPY_SESSION_NAME", "JUPYTERHUB_API_TOKEN", "MPLBACKEND", "PYTHONSTARTUP"}
    if "CNAI_FLAVOR" in os.environ:  # limits of a notebook server, not of the engine that it happens to start
        dropped |= {"CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"}
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return {"TORCHINDUCTOR_CACHE_DIR": str(compiled_dir()), **kept}


def stop() -> bool:
    """End the engine and everything on it; tell whether there was one."""
    with _lock:
        _hang_up()
        found = running()
        if found is None:
            return False
        os.kill(found.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while (left := running()) and left.pid == found.pid:
            if time.monotonic() > deadline:
                os.kill(found.pid, signal.SIGKILL)
                break
            time.sleep(0.05)
        return True


def _start() -> LocalEngine:
    launch()
    deadline = time.monotonic() + START_SECONDS
    while (found := running()) is None:
        if time.monotonic() > deadline:
            raise EngineError(
                f"the engine did not start within {START_SECONDS:.0f} s; its log: {engine_dir() / 'engine.log'}"
            )
        time.sleep(0.02)
    return found


def _hang_up() -> None:
    global _connection
    if _connection is not None:
        _connection.close()
        _connection = None
