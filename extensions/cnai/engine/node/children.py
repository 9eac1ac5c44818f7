"""Children: processes that a rank starts itself, with multiprocessing's methods spawn and forkserver.

multiprocessing tells such a child the file of its parent's `__main__`, which the child runs as `__mp_main__`. A rank's
`__main__` was frozen with the run, so the child is told a program that restores it from the run's folder.
"""

from __future__ import annotations

import os
import sys
from multiprocessing import spawn
from pathlib import Path
from typing import Any

from cnai.engine import capture
from cnai.engine.store import RunFolder, write

_FILE = "child.py"
_PROGRAM = f"from {__name__} import become\nbecome(globals(), __file__)\n"
_AGENTS_STORE = "TORCHELASTIC_USE_AGENT_STORE"


def expect(folder: RunFolder) -> None:
    """Prepare a rank for starting processes: after it has its environment, before the target runs."""
    _tell_children(folder)
    _host_own_stores()


def become(names: dict[str, Any], program: str) -> None:
    """Fill `__mp_main__` of a child with the names of the rank's `__main__`."""
    folder = RunFolder(Path(program).parent)
    _tell_children(folder)
    _host_own_stores()
    names.pop("__file__", None)  # of our program; a script has its own
    capture.load_main(folder, sys.modules["__mp_main__"])


def _tell_children(folder: RunFolder) -> None:
    usual = spawn.get_preparation_data

    def data(name: str) -> dict[str, Any]:
        main = sys.modules["__main__"]
        found: dict[str, Any] = usual(name)
        if not capture.is_main(main) and main is not sys.modules.get("__mp_main__"):
            return found  # the target runs another program as `__main__`
        program = folder.path / _FILE
        if not program.exists():
            write(program, _PROGRAM)
        return {**found, "init_main_from_path": str(program)}

    spawn.get_preparation_data = data


def _host_own_stores() -> None:
    """Let a process that chooses another MASTER_ADDR or MASTER_PORT host its process group's store there.

    Otherwise torch would believe that the agent hosts the store, and each rank would wait until its timeout.
    """
    agents = {name.encode(): os.environb.get(name.encode()) for name in ("MASTER_ADDR", "MASTER_PORT")}

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.putenv" and arguments[0] in agents and arguments[1] != agents[arguments[0]]:
            os.environ.pop(_AGENTS_STORE, None)

    if _AGENTS_STORE in os.environ:
        sys.addaudithook(watch)
