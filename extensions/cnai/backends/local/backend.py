"""Local backend: two detached processes of this user, a Dask scheduler and one Dask worker.

They belong to no kernel, so runs outlive kernels, and end after an hour without a run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from cnai import catalog
from cnai.backends.credentials import security as security
from cnai.engine.control.client import EngineClient
from cnai.engine.records import Room
from cnai.engine.store import write, writing
from cnai.errors import EngineError, UsageError
from cnai.paths import compiled_dir, engine_dir, private, store_root

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cnai.spec import RunSpec

self_healing = False
ENGINE = "local"
START_SECONDS = 60.0
STOP_SECONDS = 20.0
"""An engine needs up to 12 s for its runs, then a few for itself."""
RANKS_PER_CPU = 8
"""More ranks than this on a CPU only fight for it."""

_connection: EngineClient | None = None
_lock = threading.Lock()


def check(spec: RunSpec) -> Room:
    """Validate ranks, nodes and flavor against this machine; return the room for the ranks."""
    if find_spec("torch") is None:
        raise UsageError("torch isn't installed here; install it with: pip install 'cnai[torch]'")
    machine = catalog.this_machine()
    if spec.nodes not in {None, 1}:
        raise UsageError(f"the local backend has 1 node, this machine; given: --nodes {spec.nodes}")
    if spec.image is not None:
        catalog.load().image(spec.image)
    flavor = _flavor(spec, machine)
    most = flavor.gpus or max(16, RANKS_PER_CPU * int(machine.cpu))
    if spec.ranks.maximum > most:
        what = f"{flavor.gpus} GPUs" if flavor.gpus else f"{machine.cpu:g} CPUs"
        raise UsageError(f"{spec.ranks.maximum} ranks are more than {what} can hold; ranks may be 1 to {most}")
    return Room(cpu=flavor.cpu, gpus=flavor.gpus) if spec.flavor else Room()


def _flavor(spec: RunSpec, machine: catalog.Flavor) -> catalog.Flavor:
    if spec.flavor is None:
        return machine
    shelf = catalog.load()
    flavor = shelf.flavor(spec.flavor)
    if not flavor.fits(machine):
        fitting = ", ".join(f.name for f in shelf.that_fit(machine)) or "none"
        raise UsageError(
            f"flavor {flavor.name} ({flavor}) is larger than this machine ({machine.cpu:g} CPU, "
            f"{machine.memory_gib:.0f} GiB, {machine.gpus} GPU); flavors that fit: {fitting}"
        )
    return flavor


def claim(_: Room) -> AbstractContextManager[str]:
    """Hold the name of the one engine there is."""
    return nullcontext(ENGINE)


def connect(_: str = ENGINE) -> EngineClient:
    """Return the line to this user's engine, started if need be; one per process and address."""
    global _connection
    with _lock:
        if _connection is not None and _connection.alive and _address() == _connection.address:
            return _connection
        if _connection is not None:
            _connection.close()
            _connection = None
        _connection = EngineClient(_address() or _start(), security(_status()))
        return _connection


def running() -> bool:
    """Tell whether the engine runs."""
    return bool(_address())


def status_file() -> Path:
    """Return the file with the running engine's address, pid and credentials, readable for its owner only."""
    return engine_dir() / "engine.json"


def _status() -> dict[str, Any]:
    """Return address, pid and credentials of the running engine, its pid alone while it leaves, {} if none runs."""
    import psutil

    from cnai.backends import processes

    try:
        status: dict[str, Any] = json.loads(status_file().read_text())
        process = psutil.Process(status["pid"])
        # Started at another time: another process, which got the pid of a dead engine.
        alive = process.create_time() == status["started"] and processes.alive(process)
    except (OSError, ValueError, KeyError, psutil.Error):
        return {}
    return status if alive else {}


def _address() -> str:
    return str(_status().get("address", ""))


def launch() -> None:
    """Start the engine's processes without waiting for them; harmless if they run."""
    if _address():
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


def _start() -> str:
    launch()
    deadline = time.monotonic() + START_SECONDS
    while not (address := _address()):
        if time.monotonic() > deadline:
            raise EngineError(
                f"the engine did not start within {START_SECONDS:.0f} s; its log: {engine_dir() / 'engine.log'}"
            )
        time.sleep(0.02)
    return address


def prepare() -> None:
    """Start the engine."""
    launch()
    connect()


def start(flavor: str | None = None, nodes: int | None = None) -> dict[str, Any]:
    """Start the engine if need be; returns its address, pid, nodes and runs."""
    if flavor is not None or nodes not in {None, 1}:
        raise UsageError("the local engine is this machine as it is; start it without --flavor and --nodes")
    return {**connect().status()}


def status() -> dict[str, Any]:
    """Return the engine's address, pid, nodes and runs, {} if none runs; never starts one."""
    return {**connect().status()} if running() else {}


def stop(flavor: str | None = None) -> bool:
    """End the engine and everything on it."""
    if flavor is not None:
        raise UsageError("the local engine is this machine as it is; stop it without --flavor")
    import psutil

    from cnai.backends import processes

    global _connection
    with _lock:
        if _connection is not None:
            _connection.close()
            _connection = None
        status = _status()
        if status:
            with suppress(psutil.NoSuchProcess):
                processes.end(psutil.Process(status["pid"]), STOP_SECONDS)
        return bool(status)
