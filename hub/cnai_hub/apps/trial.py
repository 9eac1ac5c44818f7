"""Trial: a program that executes a notebook once, in its folder, before it is published.

The author's own server (or terminal) runs `python -m cnai_hub.apps.trial NOTEBOOK FOLDER`, so the hub never runs code
of users. The program writes its progress as JSON lines. When its standard input is closed, it ends and deletes FOLDER,
since its parent may have been killed.
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from cnai.appwire import AtCell, CellFailed, RanThrough
from cnai.paths import remove_tree

_PATIENCE_SECONDS = 15.0
_SHOWN_LINES = 12
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_WIDGET = "application/vnd.jupyter.widget-view+json"
_PLACE = re.compile(r"(?:Cell In\[\d+\]|<string>), line (\d+)")


def main() -> None:
    """Execute the notebook named on the command line under an app's conditions; the current folder is its folder."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nbclient replaces it while cells run
    threading.Thread(target=_end_with_parent, args=(Path(sys.argv[2]),), daemon=True).start()
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    from cnai_hub.apps.channels import waking
    from cnai_hub.apps.conditions import A_VISIT, of_kernel, respect_modes
    from cnai_hub.apps.releases import freeze

    freeze(Path.cwd())
    Path.cwd().chmod(0o500)
    respect_modes()
    notebook = nbformat.read(sys.argv[1], as_version=4)
    cells = len(notebook.cells)

    def started(cell: Any, cell_index: int) -> None:  # noqa: ARG001 - nbclient passes both by name
        _tell(AtCell(cell=cell_index + 1, cells=cells))

    client = NotebookClient(notebook, timeout=None, kernel_name="python3", on_cell_start=started, config=waking())
    try:
        # The kernel's own output would be mixed with our lines.
        client.execute(
            cwd=str(Path.cwd()),
            env=of_kernel(os.environ) | A_VISIT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except CellExecutionError:
        _tell(_failure(notebook))
    except (DeadKernelError, AssertionError):  # nbclient raises the latter if it is stopped while a cell runs
        sys.exit(1)
    else:
        if unseen := _unseen(notebook, client.widget_state):
            _tell(unseen)
            return
        _tell(RanThrough(python=".".join(map(str, sys.version_info[:3])), packages=_packages()))


def _end_with_parent(scratch: Path) -> None:
    """Terminate this process when the parent closes our input or dies; on SIGTERM nbclient also stops its kernel."""
    os.read(0, 1)
    atexit.register(remove_tree, scratch)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_PATIENCE_SECONDS)  # then the kernel doesn't end; it will when it finds this process gone
    remove_tree(scratch)
    os._exit(1)


def _failure(notebook: Any) -> CellFailed:
    """Return number, line and error of the first cell that failed."""
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            if output.output_type == "error" and "raises-exception" not in cell.metadata.get("tags", []):
                return _failed_cell(number, cell, output)
    return CellFailed(cell=len(notebook.cells), line=0, source="", error="failed without an error", tail="")


def _failed_cell(number: int, cell: Any, output: Any) -> CellFailed:
    traceback = _COLORS.sub("", "\n".join(output.traceback)).splitlines()
    places = [int(found[1]) for line in traceback if (found := _PLACE.search(line))]
    source = cell.source.splitlines()
    line = next((place for place in places if place <= len(source)), 0)
    return CellFailed(
        cell=number,
        line=line,
        source=source[line - 1].strip() if line else "",
        error=f"{output.ename}: {output.evalue}"[:2000],
        tail="\n".join(text[:300] for text in traceback[-_SHOWN_LINES:-1]),
    )


def _unseen(notebook: Any, states: dict[str, Any]) -> CellFailed | None:
    """Return the cell that shows a widget which no labextension of this environment draws."""
    from cnai_hub.apps.frontends import lacking

    modules = {model: str(state.get("_model_module", "")) for model, state in states.items()}
    unknown = lacking(set(modules.values()) - {""})
    if not unknown:
        return None
    shown = (
        (number, modules.get(output.get("data", {}).get(_WIDGET, {}).get("model_id", "")))
        for number, cell in enumerate(notebook.cells, 1)
        for output in cell.get("outputs", [])
    )
    number, module = next((found for found in shown if found[1] in unknown), (len(notebook.cells), unknown[0]))
    sentence = f"this environment has no JupyterLab extension {module!r}, so viewers would not see this cell's widget"
    return CellFailed(
        cell=number, line=0, source="", error=sentence, tail="install the extension, or show something else"
    )


def _packages() -> dict[str, str]:
    from importlib.metadata import distributions

    return dict(sorted((found.name, found.version) for found in distributions()))


def _tell(fact: AtCell | CellFailed | RanThrough) -> None:
    sys.stdout.write(fact.to_json() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
