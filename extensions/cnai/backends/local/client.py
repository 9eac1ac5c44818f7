"""Client of the local engine: finds, starts, connects to and stops it, for its person's processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress

from cnai import environment, programs
from cnai.backends.local.process import LocalEngine, status_file
from cnai.engine.control.client import EngineClient
from cnai.engine.store import write, writing
from cnai.errors import EngineError
from cnai.paths import compiled_dir, engine_dir, private, store_root

START_SECONDS = 60.0
STOP_SECONDS = 20.0
"""How long an engine may take to end, beyond the grace of its runs."""

_connection: EngineClient | None = None
_lock = threading.Lock()


def connect() -> EngineClient:
    """Return the client of this user's engine, one per process and address; starts the engine if necessary."""
    global _connection
    with _lock:
        found = running()
        if _connection is not None:
            if found is not None and _connection.alive and _connection.address == found.address:
                return _connection
            _hang_up()
        _connection = _connected(found or _start())
        return _connection


def _connected(found: LocalEngine) -> EngineClient:
    """Connect to an engine; one that turns out to be leaving is replaced by the next one."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return EngineClient(found.address, found.security())
        except EngineError:
            # It was killed this moment, or closes and has not said so yet.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
            found = running() or _start()


def running() -> LocalEngine | None:
    """Return the running engine, None if there is none or it is shutting down."""
    found = _alive()
    return found if found is not None and found.address else None


def _alive() -> LocalEngine | None:
    """Return the engine whose process exists, even while it shuts down."""
    import psutil

    from cnai.backends.local import processes

    try:
        found = LocalEngine.from_json(status_file().read_text())
        process = psutil.Process(found.pid)
        # A different start time means that another process has the pid of a dead engine.
        alive = process.create_time() == found.started and processes.alive(process)
    except (OSError, ValueError, psutil.Error):
        return None
    return found if alive else None


def leaving_until() -> float:
    """Return when the engine that shuts down has ended its ranks, on the monotonic clock; 0 if none shuts down."""
    found = _alive()
    return time.monotonic() + found.ends_by - time.time() if found is not None and not found.address else 0.0


def launch() -> None:
    """Start the engine's processes without waiting for them; does nothing if they run."""
    if running():
        return
    for variable in (environment.IDLE_SECONDS, environment.NODE_SECONDS):
        variable.get()  # fail here on a bad value, not in a process that nobody sees
    folder = engine_dir()
    with writing(folder):
        private(folder)
        private(store_root())
        write(folder / "starting", str(os.getpid()))  # fail here on a full disk, not in a process that nobody sees
        log = (folder / "engine.log").open("ab")
    with log:
        subprocess.Popen(
            [sys.executable, "-c", f"from {programs.ENGINE} import main; main()"],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**environment.for_engine(os.environ), "TORCHINDUCTOR_CACHE_DIR": compiled_dir(os.environ)},
        )


def stop() -> bool:
    """Stop the engine and everything on it; tell whether there was an engine."""
    import psutil

    from cnai.backends.local import processes

    with _lock:
        _hang_up()
        found = _alive()
        if found is not None:
            with suppress(psutil.NoSuchProcess):
                processes.end(psutil.Process(found.pid), STOP_SECONDS, leaving_until)
        return found is not None


def _start() -> LocalEngine:
    launch()
    deadline = time.monotonic() + START_SECONDS
    while (found := running()) is None:
        deadline = max(deadline, leaving_until() + START_SECONDS)
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
