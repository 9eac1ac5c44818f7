"""Advice: why a notebook that works for its author fails in its trial, and what to do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cnai.publishing.trial import SCRATCH

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from cnai.appwire import CellFailed

_NAME = re.compile(r"'([^'\n]+)'|\"([^\"\n]+)\"|(\S+) not found")
_MODULE = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")


def advice(failed: CellFailed, folder: Path, files: Collection[str]) -> str:
    """Return one sentence, "" if the error says enough; `files` are those of the app, `folder` is the notebook's."""
    if missing := _left_behind(failed, folder, files):
        return f"the app has no {missing}; add --include {missing}"
    error = failed.error
    if error.startswith("FileNotFoundError"):
        return "an app has only its notebook, the local modules that it imports, and the paths of --include"
    if _is_about_writing(error):
        return "an app can't write to its own folder; write to a folder of tempfile.mkdtemp()"
    if error.startswith("KeyError") and "environ" in failed.source + failed.tail:
        return "an app has no variables of its author's notebook server or terminal; set them in the notebook"
    return ""


def _is_about_writing(error: str) -> bool:
    """Tell whether a program tried to write to the app's folder, not to a folder elsewhere that it can't write to."""
    is_elsewhere = "'/" in error and SCRATCH not in error
    is_refused = error.startswith("PermissionError") or "ead-only" in error or "readonly" in error
    return is_refused and not is_elsewhere


def _left_behind(failed: CellFailed, folder: Path, files: Collection[str]) -> str:
    """Return the path below `folder` that the error names and the app lacks."""
    names = [next(filter(None, groups)) for groups in _NAME.findall(failed.error)]
    if module := _MODULE.match(failed.error):
        part = module[1].partition(".")[0]
        names = [path.parent.relative_to(folder).as_posix() for path in _modules(folder, part)]
    for name in names:
        path = (folder / name).absolute()
        is_there = len(name) < 1000 and folder in path.parents and path.exists()
        if is_there and not any(file == name or file.startswith(f"{name.rstrip('/')}/") for file in files):
            return name
    return ""


def _modules(folder: Path, name: str) -> list[Path]:
    return [*folder.glob(f"*/{name}.py"), *folder.glob(f"*/{name}")]
