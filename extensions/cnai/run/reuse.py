"""Reuse: finds the earlier run whose result a new run would have."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from cnai.engine.store import RunFolder, Store
from cnai.events import State
from cnai.paths import store_root
from cnai.run import pins
from cnai.run.handle import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnai.engine.capture import Captured
    from cnai.engine.records import Fingerprint
    from cnai.spec import RunSpec

_DIFFERENCES = {
    "code": "other code, or another value that it uses",
    "arguments": "other arguments",
    "modules": "other local modules",
    "conditions": "other ranks, image or --env",
}


def finished(captured: Captured, spec: RunSpec) -> tuple[Run | None, str]:
    """Return the newest successful run with the same result, or None and the reason."""
    from cnai.engine.capture import fingerprint

    wanted = fingerprint(captured.payload, captured.code_zip, spec)
    others = []
    for folder in pins.by_inputs(list(_successful(captured.target.name)), wanted.key):
        found = _fingerprint(folder)
        if found == wanted:
            run = Run(folder)
            run.reused = _started(folder)
            return run, ""
        if found is not None:
            others.append((_differences(found, wanted), _started(folder)))
    if not others:
        return None, ""
    differences, when = min(others, key=lambda other: len(other[0]))
    return None, f"the run of {when} has {' and '.join(differences)}"


def remember(run: Run) -> None:
    """Write a run's fingerprint into its record: an app has the record, but not the payload."""
    if found := _fingerprint(Store(store_root()).folder(run.id)):
        pins.note_inputs(found.key, run.id)


def _successful(target: str) -> Iterator[RunFolder]:
    for folder in Store(store_root()).folders():
        status, spec = folder.status(), folder.spec
        # Code without `ctx.steps` has the result of the number of ranks at its end.
        as_asked = status.world_size == spec.ranks.maximum or status.max_ranks is not None
        if spec.target.name == target and status.state is State.SUCCEEDED and as_asked:
            yield folder


def _fingerprint(folder: RunFolder) -> Fingerprint | None:
    """Return a run's fingerprint, None if its payload can't be read here."""
    from cnai.engine.capture import fingerprint

    if known := folder.record.fingerprint:
        return known
    try:
        code_zip = folder.code_zip.read_bytes() if folder.code_zip.exists() else b""
        found = fingerprint(folder.payload.read_bytes(), code_zip, folder.spec)
    except Exception:  # noqa: BLE001 # a payload of another version may be anything
        return None
    folder.note(found)
    return found


def _differences(found: Fingerprint, wanted: Fingerprint) -> list[str]:
    other = asdict(found)
    return [_DIFFERENCES[part] for part, value in asdict(wanted).items() if other[part] != value]


def _started(folder: RunFolder) -> str:
    """Return when a run started: the time, and the day unless it is today."""
    then = time.localtime(folder.record.created)
    today = time.strftime("%Y-%m-%d", then) == time.strftime("%Y-%m-%d")
    return time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", then)
