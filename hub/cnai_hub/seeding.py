"""What notebook servers begin with: the notebooks that come with cnai, and Jupyter's settings."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

from cnai import paths
from cnai.records import parsed
from cnai.tables import Mistake

JUPYTER_CONFIG = Path(__file__).parent / "jupyter"
"""Settings of every notebook server, as an entry of JUPYTER_CONFIG_PATH.

Its terminals start a login shell, whose profile usually resets PATH; a second shell then puts the first folder of the
server's PATH, which has the programs of its Python, in front again.
"""


def seed(folder: Path, state: Path) -> None:
    """Copy each notebook and module that comes with cnai once; keep what the person changed or deleted since."""
    paths.private(folder)
    memory = state / "seeded.json"
    seeded = _names(memory)
    shipped = [path for path in sorted(paths.shipped("notebooks").iterdir()) if path.suffix in {".ipynb", ".py"}]
    fresh = [path for path in shipped if path.name not in seeded]
    for path in fresh:
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    if fresh:
        memory.write_text(json.dumps(seeded + [path.name for path in fresh]))


def _names(memory: Path) -> list[str]:
    """Return the names of copied files; a damaged list counts as empty, as its owner may need a server to repair it."""
    with suppress(FileNotFoundError, Mistake):
        names = parsed(memory.read_bytes())
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return names
    return []
