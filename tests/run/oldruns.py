"""Finished runs without an engine: copies of one that an older version wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

_ONE = Path(__file__).resolve().parents[1] / "older" / "runs" / "digits-1126-013057-2e2a"


def finished_run(store, run_id, *, name, created, inputs=""):
    """Write a finished run to a store, and return its id."""
    folder = shutil.copytree(_ONE, store / run_id)
    fingerprint = {"code": inputs, "arguments": "", "modules": "", "conditions": ""}
    record = {"created": created, "fingerprint": fingerprint}
    for file, changes in (("spec.json", {"name": name}), ("record.json", record)):
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | changes))
    return run_id
