"""The hub as a child process of its launcher, which starts it and stops it together with proxy, servers and apps."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from cnai import environment as variables
from cnai import paths, programs
from cnai.errors import HubError
from cnai_hub.local import processes
from cnai_hub.local.client import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from cnai_hub.local.client import HubClient

_STOP_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1


def start(state: Path, port: int, client: HubClient) -> subprocess.Popen[bytes]:
    """Start the hub and wait until it answers."""
    log = state / "hub.log"
    with suppress(FileNotFoundError):
        log.replace(state / "hub.log.old")
    hub = _start(log, port)
    try:
        wait_until(lambda: _answers(hub, client, log), "the hub does not answer")
    except BaseException:
        stop(hub)
        raise
    return hub


def stop(hub: subprocess.Popen[bytes]) -> None:
    """Stop the hub with proxy, servers and apps, the engine, and then all other processes that notebooks started."""
    engine = _stopping_engine()
    hub.terminate()
    with suppress(subprocess.TimeoutExpired):
        hub.wait(_STOP_SECONDS)
    hub.kill()
    hub.wait()
    if engine is not None:
        engine.wait()  # its runs have their own limit, which may be long
    processes.end(processes.marked(paths.home()))


def _start(log: Path, port: int) -> subprocess.Popen[bytes]:
    home, libc = paths.home(), ctypes.CDLL(None)
    environment = {variables.HOME.name: str(home), variables.PORT.name: str(port), variables.WORKBENCH.name: str(home)}
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", "-f", str(paths.shipped("hub/jupyterhub_config.py"))],
            # The launcher itself may run in a terminal of a notebook server.
            env={**variables.without_hub(os.environ), **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal must reach only the launcher, which stops the processes in order.
            start_new_session=True,
            # Stop the hub if the launcher is killed (prctl(2), Linux); otherwise it would keep running unnoticed.
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
        )


def _answers(hub: subprocess.Popen[bytes], client: HubClient, log: Path) -> bool:
    if hub.poll() is not None:
        raise HubError(_startup_failure(log))
    # The proxy answers before the hub has started its services; the hub logs this line after it has started them.
    return "JupyterHub is now running" in log.read_text(errors="replace") and client.answers()


def _startup_failure(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    ours = [line.removeprefix("cnai: ") for line in lines if line.startswith("cnai: ")]
    return ours[-1] if ours else f"the hub exited while it was starting; its log says why: {log}"


def _stopping_engine() -> subprocess.Popen[bytes] | None:
    if not (paths.engine_dir() / "engine.json").exists():
        return None
    command = [sys.executable, "-m", programs.COMMAND, "cluster", "stop"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
