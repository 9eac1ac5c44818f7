"""Conditions of a trial that its parent sets: environment and umask are the app's, not those of the author's kernel.

An app starts like its author's notebook server, so the trial takes what that server started with: its author may have
changed the variables of the kernel since. In a terminal on the hub's machine, the hub's file has them.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cnai import environment, paths
from cnai.appwire import Accepted, Terminal
from cnai.tables import Mistake

_SERVER = "JUPYTERHUB_SERVICE_PREFIX"
_OF_FLAVORS = (
    *(environment.FLAVOR.name, environment.IMAGE.name, "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"),
    *("CPU_GUARANTEE", "CPU_LIMIT", "MEM_GUARANTEE", "MEM_LIMIT"),
)
"""Variables that limit a notebook server to its flavor."""

_UMASK = re.compile(r"^Umask:\s*([0-7]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Conditions:
    """Environment and umask of a process; a umask of -1 is inherited, as in `subprocess.Popen`.

    `is_homeless` tells that the app is a pod with an empty home.
    """

    environment: dict[str, str]
    umask: int = -1
    is_homeless: bool = False


def of_app(accepted: Accepted) -> Conditions:
    """Return the conditions under which an app of this author starts; the hub adds those of its flavor."""
    found = (_of_server() if _SERVER in os.environ else _of_terminal()) or Conditions(dict(os.environ))
    given = environment.without_hub(found.environment)
    if environment.FLAVOR.name in given:  # limits of the author's server
        given = {name: value for name, value in given.items() if name not in _OF_FLAVORS}
    given = {environment.HOME.name: str(paths.home()), **given, **accepted.environment}
    return Conditions(given, found.umask, is_homeless=accepted.runs)


def _of_server() -> Conditions | None:
    """Return what the notebook server started with: the oldest ancestor with this server's variables."""
    import psutil

    with suppress(psutil.Error, OSError):
        found = None
        for process in (psutil.Process(), *psutil.Process().parents()):
            started = process.environ()
            if started.get(_SERVER) != os.environ[_SERVER]:
                break
            found = Conditions(started, _umask(process.pid))
        return found
    return None


def _umask(pid: int) -> int:
    with suppress(OSError):
        if found := _UMASK.search(Path(f"/proc/{pid}/status").read_text()):
            return int(found[1], 8)
    return -1


def _of_terminal() -> Conditions | None:
    with suppress(OSError, Mistake):
        known = Terminal.from_json((paths.home() / "hub" / "client.json").read_bytes())
        if known.environment is not None:
            return Conditions(known.environment, -1 if known.umask is None else known.umask)
    return None
