"""Trial: a notebook is executed once, in a copy of its snapshot, before it becomes an app.

The parent reads the child's progress as JSON lines from its standard output.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnai.errors import HubError
from cnai_hub.apps.environment import without_hub
from cnai_hub.apps.releases import remove_tree

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable

DEADLINE_SECONDS = 600.0
_SHOWN_LINES = 12
_LONGEST_LINE = 2**20
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_PLACE = re.compile(r"(?:Cell In\[\d+\]|<string>), line (\d+)")


class TrialFailed(HubError):
    """The notebook does not run through; the message has cell, line and the end of the traceback."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a notebook ran through with."""

    python: str
    packages: dict[str, str]


async def rehearse(files: Path, notebook: str, *, deadline_seconds: float, progress: Callable[[str], None]) -> Outcome:
    """Execute a notebook in a copy of its folder; TrialFailed says why it doesn't run through."""
    scratch = Path(tempfile.mkdtemp(prefix="cnai-trial-"))
    try:
        shutil.copytree(files, scratch / "files")
        return await _rehearse(scratch / "files", notebook, deadline_seconds, progress)
    finally:
        remove_tree(scratch)


async def _rehearse(folder: Path, notebook: str, deadline_seconds: float, progress: Callable[[str], None]) -> Outcome:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cnai_hub.apps.trial", notebook),
        cwd=folder,
        env=without_hub(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        limit=_LONGEST_LINE,
    )
    last: dict[str, Any] = {}
    try:
        async with asyncio.timeout(deadline_seconds):
            async for fact in _facts(process):
                last = fact
                if "cell" in fact and "error" not in fact:
                    progress(f"running the notebook once: cell {fact['cell']} of {fact['cells']}")
    except TimeoutError:
        where = f"cell {last['cell']} of {last['cells']}" if "cell" in last else "its start"
        raise TrialFailed(
            f"{notebook} did not run through within {deadline_seconds:g} s (it was at {where}); make it quicker, "
            "for example by attaching to a finished run instead of training"
        ) from None
    finally:
        await _end(process)
    return _outcome(notebook, last)


async def _facts(process: Process) -> Any:
    assert process.stdout is not None
    async for line in process.stdout:
        yield json.loads(line)


async def _end(process: Process) -> None:
    """End the child; on SIGTERM nbclient takes its kernel with it."""
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(20):
                await process.wait()
        except TimeoutError:
            process.kill()
    await process.wait()


def _outcome(notebook: str, last: dict[str, Any]) -> Outcome:
    if "packages" in last:
        return Outcome(last["python"], last["packages"])
    if "error" not in last:
        raise TrialFailed(f"{notebook} could not be tried: its kernel ended at cell {last.get('cell', 1)}")
    place = f", line {last['line']}: {last['source']}" if last["line"] else ""
    raise TrialFailed(f"{notebook}: cell {last['cell']}{place}\n{last['error']}\n{last['tail']}".rstrip())


def main() -> None:
    """Execute the notebook named on the command line; the current folder is its folder."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    from cnai_hub.apps.channels import waking

    notebook = nbformat.read(sys.argv[1], as_version=4)
    cells = len(notebook.cells)

    def started(cell: Any, cell_index: int) -> None:  # noqa: ARG001 - nbclient passes both by name
        _tell(cell=cell_index + 1, cells=cells)

    client = NotebookClient(notebook, timeout=None, kernel_name="python3", on_cell_start=started, config=waking())
    try:
        # The kernel's own output would come between our lines.
        client.execute(cwd=str(Path.cwd()), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except CellExecutionError:
        _tell(**_failure(notebook))
    except (DeadKernelError, AssertionError):  # the latter is nbclient's own, when it is ended while a cell runs
        sys.exit(1)
    else:
        _tell(python=".".join(map(str, sys.version_info[:3])), packages=_packages())


def _failure(notebook: Any) -> dict[str, Any]:
    """Return number, line and error of the first cell that failed."""
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            if output.output_type == "error" and "raises-exception" not in cell.metadata.get("tags", []):
                return _failed_cell(number, cell, output)
    return {"cell": len(notebook.cells), "line": 0, "source": "", "error": "failed without an error", "tail": ""}


def _failed_cell(number: int, cell: Any, output: Any) -> dict[str, Any]:
    traceback = _COLORS.sub("", "\n".join(output.traceback)).splitlines()
    places = [int(found[1]) for line in traceback if (found := _PLACE.search(line))]
    source = cell.source.splitlines()
    line = next((place for place in places if place <= len(source)), 0)
    return {
        "cell": number,
        "line": line,
        "source": source[line - 1].strip() if line else "",
        "error": f"{output.ename}: {output.evalue}"[:2000],
        "tail": "\n".join(text[:300] for text in traceback[-_SHOWN_LINES:-1]),
    }


def _packages() -> dict[str, str]:
    from importlib.metadata import distributions

    return dict(sorted((found.name, found.version) for found in distributions()))


def _tell(**fact: Any) -> None:
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
