"""Trial: runs a notebook once in its author's server or terminal, before it is published.

The release records the versions that the trial used. Where apps can't reach the store, the release also contains the
runs whose results the notebook showed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from cnai import appwire, environment, programs
from cnai.appwire import AtCell, CellFailed, Lookup, Pins, RanThrough
from cnai.errors import HubError, UsageError
from cnai.paths import remove_tree, store_root
from cnai.publication import MOST_RUN_BYTES, RUN_FILES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cnai.publishing.conditions import Conditions

DEADLINE_SECONDS = 600.0
SCRATCH = "cnai-trial-"
"""Beginning of the name of a trial's folder."""

_PATIENCE_SECONDS = 20.0


class TrialFailed(HubError):
    """The notebook failed; the message has cell, line and the end of the traceback."""

    def __init__(self, text: str, failed: CellFailed | None = None) -> None:
        super().__init__(text)
        self.failed = failed


@dataclass(frozen=True, slots=True)
class Outcome:
    """The versions that a successful trial used, and the runs that the notebook looked up.

    `runs` are those that it attached to or reused: the app needs their files.
    """

    python: str
    packages: dict[str, str]
    pins: Pins
    runs: tuple[str, ...] = ()


def rehearse(
    files: Mapping[str, bytes],
    notebook: str,
    conditions: Conditions,
    *,
    deadline_seconds: float,
    progress: Callable[[str], None],
) -> Outcome:
    """Execute a notebook with its files in a new folder, under an app's conditions. Raises TrialFailed."""
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH))
    try:
        for name, content in files.items():
            path = scratch / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return _rehearse(scratch, notebook, conditions, deadline_seconds, progress)
    finally:
        remove_tree(scratch)


def _rehearse(
    scratch: Path,
    notebook: str,
    conditions: Conditions,
    deadline_seconds: float,
    progress: Callable[[str], None],
) -> Outcome:
    taken = scratch / "taken"
    home = {"HOME": tempfile.mkdtemp(dir=scratch)} if conditions.is_homeless else {}
    with (scratch / "errors").open("w+b") as errors:
        process = subprocess.Popen(
            (sys.executable, "-m", programs.TRIAL, notebook, str(scratch)),
            cwd=scratch / "files",
            env={**conditions.environment, **home, environment.RUNS_TAKEN.name: str(taken)},
            umask=conditions.umask,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.terminate()

        clock = threading.Timer(deadline_seconds, give_up)
        clock.start()
        last: AtCell | CellFailed | RanThrough | None = None
        try:
            for line in process.stdout or ():
                last = appwire.trial(line)
                if isinstance(last, AtCell):
                    progress(f"running the notebook once: cell {last.cell} of {last.cells}")
        finally:
            clock.cancel()
            _end(process)
        if late.is_set() and not isinstance(last, CellFailed | RanThrough):
            raise _too_slow(notebook, deadline_seconds, last)
        found = _success(notebook, last, errors)
    return _outcome(found, taken)


def _outcome(versions: RanThrough, taken: Path) -> Outcome:
    notes = [Lookup.from_json(line) for line in (taken.read_text().splitlines() if taken.exists() else ())]
    pins = Pins(
        until=time.time(),
        names={note.asked: note.run for note in notes if note.kind == "name"},
        inputs={note.asked: note.run for note in notes if note.kind == "inputs"},
    )
    runs = dict.fromkeys(note.run for note in notes if note.shown)
    return Outcome(versions.python, versions.packages, pins, tuple(runs))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the child; on SIGTERM nbclient ends its kernel, too."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also after a second interrupt
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


def _too_slow(notebook: str, deadline_seconds: float, last: AtCell | None) -> TrialFailed:
    where = f"cell {last.cell} of {last.cells}" if last else "its start"
    return TrialFailed(
        f"{notebook} did not finish within {deadline_seconds:g} s (it was at {where}); make it faster, "
        "for example by attaching to a finished run instead of training"
    )


def _success(notebook: str, last: AtCell | CellFailed | RanThrough | None, errors: IO[bytes]) -> RanThrough:
    if isinstance(last, RanThrough):
        return last
    if last is None:
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines() or ["the trial printed nothing"]
        raise TrialFailed(f"{notebook} could not be tried: {said[-1]}")
    if isinstance(last, AtCell):
        raise TrialFailed(f"{notebook} could not be tried: its kernel ended at cell {last.cell}")
    place = f", line {last.line}: {last.source}" if last.line else ""
    raise TrialFailed(f"{notebook}: cell {last.cell}{place}\n{last.error}\n{last.tail}".rstrip(), last)


def results(runs: Iterable[str]) -> dict[str, bytes]:
    """Return the files that an app needs to show these runs, as `<run>/<file>`."""
    from cnai.run import attach

    found: dict[str, bytes] = {}
    for name in runs:
        run = attach(name)
        if not run.state.final:
            raise UsageError(
                f"run {name} is {run.state}, but an app shows only finished runs; publish when the run has ended"
            )
        folder = store_root() / name
        found |= {f"{name}/{file}": (folder / file).read_bytes() for file in RUN_FILES if (folder / file).exists()}
    size = sum(map(len, found.values()))
    if size > MOST_RUN_BYTES:
        raise UsageError(
            f"the runs that the notebook shows have {size / 2**20:.0f} MiB of results; an app may bring "
            f"{MOST_RUN_BYTES // 2**20} MiB; return less from the target of {_largest(found)}"
        )
    return found


def _largest(files: Mapping[str, bytes]) -> str:
    return max(files, key=lambda name: len(files[name])).partition("/")[0]
