"""Pins: in a trial, note the runs that the notebook looks up; in the app, find the same runs again.

A run that the notebook itself starts is found as it would be elsewhere.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cnai import environment
from cnai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnai.appwire import Pins
    from cnai.engine.store import RunFolder

_started: set[str] = set()
"""Ids of the runs that this process started."""


def started(run_id: str) -> None:
    """Remember a run that this process started."""
    _started.add(run_id)


def note_name(asked: str, run_id: str, *, shown: bool) -> None:
    """In a trial, note the run that a name led to; not the notebook's own run, which each page starts anew."""
    if run_id not in _started:
        _note("name", asked, run_id, shown=shown)


def note_inputs(inputs: str, run_id: str) -> None:
    """In a trial, note the run that belongs to code and arguments, even if the trial started it."""
    if environment.RUNS_TAKEN.get():
        _started.discard(run_id)
        _note("inputs", inputs, run_id, shown=True)


def by_name(folders: Sequence[RunFolder], asked: str) -> list[RunFolder]:
    """Return the runs among which a name is looked up: first this process's, then the one the trial found."""
    pins = _pins()
    if pins is None:
        return list(folders)
    found, pinned = visible(folders), pins.names.get(asked)
    ids = {folder.run_id for folder in found}
    if pinned and pinned not in ids and not ids & _started:
        raise UsageError(f"run {pinned}, which this app was published with, was removed; publish the notebook again")
    return sorted(found, key=lambda folder: (folder.run_id not in _started, folder.run_id != pinned))


def by_inputs(folders: Sequence[RunFolder], inputs: str) -> list[RunFolder]:
    """Return the runs among which code and arguments are looked up: first the one that the trial found."""
    pins = _pins()
    if pins is None:
        return list(folders)
    pinned = pins.inputs.get(inputs)
    return sorted(visible(folders), key=lambda folder: folder.run_id != pinned)


def visible(folders: Sequence[RunFolder]) -> list[RunFolder]:
    """Return the runs that a notebook may find; in an app, those of its publication and those that it starts."""
    pins = _pins()
    if pins is None:
        return list(folders)
    known = _started | set(pins.names.values()) | set(pins.inputs.values())
    return [folder for folder in folders if folder.run_id in known or folder.record.created <= pins.until]


def _note(kind: Literal["name", "inputs"], asked: str, run_id: str, *, shown: bool) -> None:
    if file := environment.RUNS_TAKEN.get():
        from cnai.appwire import Lookup

        with Path(file).open("a") as notes:
            notes.write(Lookup(kind=kind, asked=asked, run=run_id, shown=shown).to_json() + "\n")


def _pins() -> Pins | None:
    return _read(file) if (file := environment.RELEASE.get()) else None


@cache
def _read(file: str) -> Pins | None:
    from cnai.appwire import Pinned

    try:
        return Pinned.from_json(Path(file).read_bytes()).pins
    except OSError:
        raise UsageError("this version of the app was removed; open the app again") from None
