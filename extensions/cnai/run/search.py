"""Search: finds runs in the store."""

from __future__ import annotations

from cnai.engine.store import RunFolder, Store
from cnai.errors import UnknownName, UsageError
from cnai.paths import store_root
from cnai.run import pins
from cnai.run.handle import Run


def runs(limit: int | None = None) -> list[Run]:
    """Return all runs, or the `limit` newest ones, newest first."""
    return [Run(folder) for folder in pins.visible(Store(store_root()).folders())[:limit]]


def attach(run: str = "latest") -> Run:
    """Return a run by "latest", its id, the start of its id, or its name (then the newest), and follow it live.

    Restarts the engine if it was lost or stopped; the run continues from its last checkpoint.
    """
    found = _find(run, shown=True)
    if not found.state.final:
        found.follow()
    return found


def find(run: str = "latest") -> Run:
    """Return a run as `attach` does, without following it; no engine is started."""
    return _find(run, shown=False)


def _find(given: str, *, shown: bool) -> Run:
    folder = _folder(given)
    pins.note_name(given, folder.run_id, shown=shown)
    return Run(folder)


def _folder(given: str) -> RunFolder:
    folders = pins.by_name(Store(store_root()).folders(), given)
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
