"""Checks of this machine or pod: Python and torch, files, disk, memory, ports, engine, hub."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import cnai
from cnai import backends, catalog, environment, paths
from cnai.faces.doctor.report import Check

if TYPE_CHECKING:
    from collections.abc import Callable

SMALLEST_STORE = 2 * 2**30
SMALLEST_SHARED_MEMORY = 2**28
_TORCH = "import torch; print(torch.__version__, torch.cuda.device_count())"
_TORCH_SECONDS = 120
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only inspected


def python() -> Check:
    """Report the Python in use, because a notebook and a shell may use different ones."""
    return Check.ok("python", f"{platform.python_version()} in {sys.prefix}")


def torch() -> Check:
    """Check that a new process can import torch, and that torch sees all GPUs."""
    if find_spec("torch") is None:
        return Check.wrong("torch", "not installed here", "install it with: pip install 'cnai[torch]'")
    tried = subprocess.run([sys.executable, "-c", _TORCH], capture_output=True, text=True, timeout=_TORCH_SECONDS)
    if tried.returncode:
        last = (tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"])[-1]
        return Check.wrong("torch", f"can't be imported: {last}", "install it again: pip install 'cnai[torch]'")
    version, seen = tried.stdout.split()[-2:]
    gpus = catalog.this_machine().gpus
    if gpus > int(seen):
        found = f"{version} sees {seen} of {gpus} GPUs"
        return Check.wrong("torch", found, "install a torch that is built for the CUDA of this driver")
    return Check.ok("torch", f"{version}, {seen} GPU{'' if seen == '1' else 's'}")


def store() -> Check:
    """Check that runs can be written and have enough free space."""
    root = paths.store_root()
    advice = f"free some space: delete finished runs in {root}, or set {environment.STORE} to a larger disk"
    try:
        if not root.is_dir():
            paths.private(root)
        with tempfile.NamedTemporaryFile(dir=root, prefix=".doctor-") as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Check.wrong("store", f"{root} can't be written: {error.strerror}", advice)
    free = shutil.disk_usage(root).free
    found = f"{free / 2**30:.1f} GiB free in {root}"
    return Check.ok("store", found) if free >= SMALLEST_STORE else Check.wrong("store", f"only {found}", advice)


def private_files() -> Check:
    """Check that other accounts can't open the person's folders."""
    folders = [folder for folder in (paths.home(), paths.store_root()) if folder.exists()]
    readable = [folder for folder in folders if paths.open_to_others(folder)]
    if not readable:
        return Check.ok("private files", f"{paths.home()} is closed to other accounts")
    found = f"other accounts can open {' and '.join(map(str, readable))}"
    remedy = f"close it to them: chmod go= {' '.join(map(str, readable))}"
    if any(folder.stat().st_uid != os.geteuid() for folder in readable):
        remedy = f"it isn't yours to close: set {environment.HOME} and {environment.STORE} to folders of your own"
    return Check.wrong("private files", found, remedy)


def shared_memory() -> Check:
    """Check the shared memory that torch's data loaders use; a container has 64 MiB unless it requests more."""
    size = shutil.disk_usage(_SHARED_MEMORY).total
    found = f"{size / 2**30:.2g} GiB"
    if size >= SMALLEST_SHARED_MEMORY:
        return Check.ok("shared memory", found)
    return Check.wrong("shared memory", f"only {found}", "start the container with more, such as --shm-size=2g")


def ports() -> Check:
    """Check that processes of this machine can connect to each other, as ranks do."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        found = f"a port of 127.0.0.1 can't be opened and reached: {error.strerror or error}"
        return Check.wrong("ports", found, "bring up the loopback interface: ip link set lo up")
    return Check.ok("ports", "127.0.0.1 can be reached")


def engine() -> Check:
    """Check that the engine answers, if runs use an engine of this machine."""
    name = backends.default()
    look = _ENGINE_LOOKS.get(name)
    return look() if look else Check.ok("engine", f"provided by the backend {name}")


def _local_engine() -> Check:
    from cnai.engine.records import EngineStatus
    from cnai.errors import CnaiError

    try:
        engines = cnai.cluster()
    except (CnaiError, OSError) as error:
        found = f"runs but does not answer: {error}"
        return Check.wrong("engine", found, "stop it with %cnai cluster stop; the next engine continues its runs")
    if not engines:
        return Check.ok("engine", "not running; it starts with the first run")
    where = ", ".join(one.address for one in engines if isinstance(one, EngineStatus))
    return Check.ok("engine", f"answers at {where}")


_ENGINE_LOOKS: dict[str, Callable[[], Check]] = {"local": _local_engine}


def hub() -> Check:
    """Check that the hub of this notebook server answers and accepts its token."""
    import httpx

    url, token = os.environ.get("JUPYTERHUB_API_URL"), os.environ.get("JUPYTERHUB_API_TOKEN")
    if not url or not token:
        return Check.ok("hub", "none; this is not a notebook server of a hub")
    try:
        reply = httpx.get(f"{url}/user", headers={"Authorization": f"token {token}"}, timeout=10, trust_env=False)
    except httpx.HTTPError as error:
        found = f"{url} does not answer ({type(error).__name__})"
        return Check.wrong("hub", found, "wait a minute; if it still does not answer, tell your administrator")
    if reply.status_code in (401, 403):
        return Check.wrong("hub", "no longer accepts this server's token", "stop the server and start it again")
    if reply.is_error:
        return Check.wrong("hub", f"answers {reply.status_code} {reply.reason_phrase}", "tell your administrator")
    return Check.ok("hub", f"answers, and knows this server as {reply.json()['name']}'s")


LOOKS: tuple[Callable[[], Check], ...] = (python, torch, private_files, store, shared_memory, ports, engine, hub)
