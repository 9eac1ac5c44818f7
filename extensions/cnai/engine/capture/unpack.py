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
from typing import TYPE_CHECKING, Any

from cnai.engine.capture import frozen, payload, sources
from cnai.engine.capture.project import Project
from cnai.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from cnai.engine.store import RunFolder


def load(data: bytes, code_dir: Path | None, *, lasting: bool = False) -> Callable[[], Any]:
    """Return a function without arguments that runs a payload's target, once.

    Puts the folders of the local modules first on `sys.path` immediately; the returned function restores `sys.path`,
    `sys.argv` and `__main__` when the target ends, unless they are `lasting`: a program's threads and exit handlers
    use them, too.
    """
    path, argv = list(sys.path), list(sys.argv)
    facts, pickled = _split(data)
    project = _install(facts, code_dir)
    if project is not None:
        _tell(project)
    # Last: the working directory (the notebook's folder), for modules whose names capture could not see.
    sys.path.append("")
    importlib.invalidate_caches()
    main = frozen.Main()
    target = _target(facts, pickled, main)
    if lasting:
        sys.modules["__main__"] = main
        return lambda: target.run(main)

    def run() -> Any:
        try:
            with frozen.main_module(main):
                return target.run(main)
        finally:
            sys.path[:], sys.argv[:] = path, argv
            if project is not None:
                project.remove()

    return run


def load_main(folder: RunFolder, main: ModuleType) -> None:
    """Define the names of a run's `__main__` in a module of a process that a rank started, which has its `sys.path`."""
    facts, pickled = _split(folder.payload.read_bytes())
    path = list(sys.path)
    _install(facts, _code_dir(folder))
    sys.path[:] = path
    _target(facts, pickled, main).define(main)


def is_main(module: ModuleType) -> bool:
    """Tell whether a module is the `__main__` that a target runs in."""
    return isinstance(module, frozen.Main)


def _split(data: bytes) -> tuple[dict[str, Any], memoryview]:
    end = data.index(b"\n")
    facts = json.loads(data[:end])
    _check({key: facts[key] for key in ("python", "cloudpickle")}, payload.versions())
    return facts, memoryview(data)[end + 1 :]


def _install(facts: dict[str, Any], code_dir: Path | None) -> Project | None:
    if code_dir is None:
        return None
    project = Project(facts.get("roots", {}), facts.get("path", ()), code_dir)
    project.install()
    return project


def _target(facts: dict[str, Any], pickled: memoryview, main: ModuleType) -> frozen.Frozen:
    for shown, text in facts["sources"].items():
        sources.remember(shown, text)
    with frozen.main_module(main):
        target: frozen.Frozen = pickle.loads(pickled)
    return target


def _tell(project: Project) -> None:
    """Say in the run's output, once per node, that paths lead to the copy of the local modules."""
    if (files := project.misses()) and os.environ.get("LOCAL_RANK", "0") == "0":
        print(  # noqa: T201 # the author reads the rank's output
            f"cnai: {', '.join(project.absent)} does not exist on this node, so modules run from the run's copy;"
            f" files that {', '.join(files)} reads or writes beside its __file__ are in {project.path[-1]}",
            file=sys.stderr,
        )


def load_run(folder: RunFolder, *, lasting: bool = False) -> Callable[[], Any]:
    """Return the function that runs a run's target; several nodes may unpack its local modules at once."""
    return load(folder.payload.read_bytes(), _code_dir(folder), lasting=lasting)


def _code_dir(folder: RunFolder) -> Path | None:
    return unzip(folder.code_zip.read_bytes(), folder.path / "code") if folder.code_zip.exists() else None


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
