"""Search: find runs that exist."""

from __future__ import annotations

from pathlib import Path

from cnai import environment
from cnai.engine.store import RunFolder, Store
from cnai.errors import UnknownName, UsageError
from cnai.events import State
from cnai.paths import store_root
from cnai.run.handle import Run


def runs(limit: int | None = None) -> list[Run]:
    """Return the newest runs, newest first; by default all."""
    return [Run(folder) for folder in Store(store_root()).folders()[:limit]]


def attach(run: str = "latest") -> Run:
    """Return a run by "latest", its id, the beginning of it, or its name (then the newest), and follow it live.

    Starts the engine again if it was lost; what was going on there goes on from its last checkpoint.
    """
    found = find(run)
    if not found.state.final:
        found.follow()
    take(found)
    return found


def take(run: Run) -> None:
    """Note that the notebook shows a run that it may not have started, if somebody wants to know."""
    if file := environment.RUNS_TAKEN.get():
        with Path(file).open("a") as notes:
            notes.write(f"{run.id}\n")


def find(run: str = "latest") -> Run:
    """Return a run as `attach` does, without following it; no engine is started."""
    return Run(_find(run))


def finished(target: str, inputs: str) -> Run | None:
    """Return the newest successful run of a target with the same code and arguments."""
    for folder in Store(store_root()).folders():
        same = folder.record.inputs_hash == inputs and folder.spec.target.name == target
        if same and folder.status().state is State.SUCCEEDED:
            return Run(folder)
    return None


def _find(wanted: str) -> RunFolder:
    folders = Store(store_root()).folders()
    if not folders:
        raise UsageError("there are no runs yet; start one with %cnai train")
    if wanted == "latest":
        return folders[0]
    for folder in folders:
        if folder.run_id == wanted:
            return folder
    begin = [folder for folder in folders if folder.run_id.startswith(wanted)]
    named = [folder for folder in begin if folder.spec.name == wanted]
    if named:
        return named[0]
    if len(begin) > 1:
        raise UsageError(
            f"{wanted!r} matches {len(begin)} runs: {', '.join(f.run_id for f in begin[:5])}; type more of the id"
        )
    if begin:
        return begin[0]
    raise UnknownName("run", wanted, [folder.run_id for folder in folders[:5]], "see %cnai runs")
