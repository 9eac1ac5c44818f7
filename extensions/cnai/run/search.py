"""Search: finds runs in the store."""

from __future__ import annotations

from pathlib import Path

from cnai import environment
from cnai.engine.store import RunFolder, Store
from cnai.errors import UnknownName, UsageError
from cnai.paths import store_root
from cnai.run.handle import Run


def runs(limit: int | None = None) -> list[Run]:
    """Return all runs, or the `limit` newest ones, newest first."""
    return [Run(folder) for folder in Store(store_root()).folders()[:limit]]


def attach(run: str = "latest") -> Run:
    """Return a run by "latest", its id, the start of its id, or its name (then the newest), and follow it live.

    Restarts the engine if it was lost or stopped; the run continues from its last checkpoint.
    """
    found = find(run)
    if not found.state.final:
        found.follow()
    take(found)
    return found


def take(run: Run) -> None:
    """Note the id of a run that the notebook shows, if a trial records these ids."""
    if file := environment.RUNS_TAKEN.get():
        with Path(file).open("a") as notes:
            notes.write(f"{run.id}\n")


def find(run: str = "latest") -> Run:
    """Return a run as `attach` does, without following it; no engine is started."""
    return Run(_find(run))


def _find(given: str) -> RunFolder:
    folders = Store(store_root()).folders()
    if not folders:
        raise UsageError("there are no runs yet; start one with %cnai train")
    if given == "latest":
        return folders[0]
    for folder in folders:
        if folder.run_id == given:
            return folder
    matching = [folder for folder in folders if folder.run_id.startswith(given)]
    named = [folder for folder in matching if folder.spec.name == given]
    if named:
        return named[0]
    if len(matching) > 1:
        raise UsageError(
            f"{given!r} matches {len(matching)} runs: {', '.join(f.run_id for f in matching[:5])}; type more of the id"
        )
    if matching:
        return matching[0]
    raise UnknownName("run", given, [folder.run_id for folder in folders[:5]], "see %cnai runs")
