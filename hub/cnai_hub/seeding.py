"""The notebooks that come with cnai, copied to where people work."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from cnai import paths

if TYPE_CHECKING:
    from pathlib import Path


def seed(folder: Path, state: Path) -> None:
    """Copy each notebook and module that comes with cnai once; what the person changed or deleted stays so."""
    paths.private(folder)
    memory = state / "seeded.json"
    seeded: list[str] = json.loads(memory.read_text()) if memory.exists() else []
    shipped = [path for path in sorted(paths.shipped("notebooks").iterdir()) if path.suffix in {".ipynb", ".py"}]
    fresh = [path for path in shipped if path.name not in seeded]
    for path in fresh:
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    if fresh:
        memory.write_text(json.dumps(seeded + [path.name for path in fresh]))
