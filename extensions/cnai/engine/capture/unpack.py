"""Unpack: the rank's side of capture."""

from __future__ import annotations

import builtins
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

from cnai.engine.capture import frozen, payload, sources, tracebacks
from cnai.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnai.engine.store import RunFolder


def load(data: bytes, code_dir: Path | None, *, lasting: bool = False) -> Callable[[], Any]:
    """Return a function without arguments that runs a payload's target, once.

    Puts the folder with the local modules first on `sys.path` immediately; the returned function restores `sys.path`,
    `sys.argv` and `__main__` when the target ends, unless they are `lasting`: a program's threads and exit handlers
    use them, too. Tensors in the target's result are on the CPU.
    """
    end = data.index(b"\n")
    facts = json.loads(data[:end])
    _check({key: facts[key] for key in ("python", "cloudpickle")}, payload.versions())
    path, argv = list(sys.path), list(sys.argv)
    if code_dir is not None:
        sys.path.insert(0, str(code_dir))
        tracebacks.hide_folder(code_dir)
    # Last: the working directory (the notebook's folder), for modules whose names capture could not see.
    sys.path.append("")
    importlib.invalidate_caches()
    for shown, text in facts["sources"].items():
        sources.remember(shown, text)
    main = ModuleType("__main__")
    vars(main)["__builtins__"] = builtins  # exec would set their dict instead
    with frozen.main_module(main):
        target = pickle.loads(memoryview(data)[end + 1 :])
    if lasting:
        sys.modules["__main__"] = main
        return lambda: to_cpu(target.run(main))

    def run() -> Any:
        try:
            with frozen.main_module(main):
                return to_cpu(target.run(main))
        finally:
            sys.path[:], sys.argv[:] = path, argv

    return run


def load_run(folder: RunFolder, *, lasting: bool = False) -> Callable[[], Any]:
    """Return the function that runs a run's target; several nodes may unpack its local modules at once."""
    code_dir = unzip(folder.code_zip.read_bytes(), folder.path / "code") if folder.code_zip.exists() else None
    return load(folder.payload.read_bytes(), code_dir, lasting=lasting)


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


def to_cpu(value: Any) -> Any:
    """Return a result with its tensors and modules on the CPU, without gradient history and without DDP wrappers."""
    torch: Any = sys.modules.get("torch")
    if type(value) in (list, tuple):
        return type(value)(to_cpu(item) for item in value)
    if type(value) is dict:
        return {key: to_cpu(item) for key, item in value.items()}
    if torch is None:
        return value
    if isinstance(value, torch.Tensor):
        return (value if value.is_leaf else value.detach()).cpu()
    if isinstance(value, torch.nn.Module):
        wrapped = isinstance(value, torch.nn.parallel.DistributedDataParallel)
        return (value.module if wrapped else value).cpu()
    return value
