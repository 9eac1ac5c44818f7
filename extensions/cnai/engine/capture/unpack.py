"""Unpack: the rank's side of capture."""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import sys
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cnai.engine.capture import frozen, payload, sources
from cnai.engine.capture.project import Project
from cnai.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnai.engine.store import RunFolder


def load(data: bytes, code_dir: Path | None) -> Callable[[], Any]:
    """Return a function without arguments that runs a payload's target, once.

    Puts the folders of the local modules first on `sys.path` immediately; the returned function restores `sys.path`
    and `sys.argv` when the target ends.
    """
    end = data.index(b"\n")
    facts = json.loads(data[:end])
    _check({key: facts[key] for key in ("python", "cloudpickle")}, payload.versions())
    path, argv = list(sys.path), list(sys.argv)
    project = Project(facts.get("roots", {}), facts.get("path", ()), code_dir) if code_dir is not None else None
    if project is not None:
        project.install()
        _tell(project)
    # Last: the working directory (the notebook's folder), for modules whose names capture could not see.
    sys.path.append("")
    importlib.invalidate_caches()
    for shown, text in facts["sources"].items():
        sources.remember(shown, text)
    main = ModuleType("__main__")
    with frozen.main_module(main):
        target = pickle.loads(memoryview(data)[end + 1 :])

    def run() -> Any:
        try:
            with frozen.main_module(main):
                return target.run(main)
        finally:
            sys.path[:], sys.argv[:] = path, argv
            if project is not None:
                project.remove()

    return run


def _tell(project: Project) -> None:
    """Say in the run's output, once per node, that paths lead to the copy of the local modules."""
    if (files := project.misses()) and os.environ.get("LOCAL_RANK", "0") == "0":
        print(  # noqa: T201 # the author reads the rank's output
            f"cnai: {', '.join(project.absent)} does not exist on this node, so modules run from the run's copy;"
            f" files that {', '.join(files)} reads or writes beside its __file__ are in {project.path[-1]}",
            file=sys.stderr,
        )


def load_run(folder: RunFolder) -> Callable[[], Any]:
    """Return the function that runs a run's target; several nodes may unpack its local modules at once."""
    code_dir = unzip(folder.code_zip.read_bytes(), folder.path / "code") if folder.code_zip.exists() else None
    return load(folder.payload.read_bytes(), code_dir)


def _check(needed: dict[str, str], here: dict[str, str]) -> None:
    if needed != here:
        raise EngineError(
            f"the notebook runs Python {needed['python']} with cloudpickle {needed['cloudpickle']}, but this node runs "
            f"Python {here['python']} with cloudpickle {here['cloudpickle']}; use the same image for both"
        )


def unzip(code_zip: bytes, folder: Path) -> Path:
    """Extract local modules into a folder, atomically; do nothing if the folder exists."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        fresh = Path(scratch) / "code"
        with zipfile.ZipFile(io.BytesIO(code_zip)) as archive:
            archive.extractall(fresh)
        try:
            os.rename(fresh, folder)  # noqa: PTH104 # fails if another process was first; its content is the same
        except OSError:
            if not folder.is_dir():
                raise
    return folder
