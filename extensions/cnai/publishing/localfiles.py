"""Local files of a notebook: the modules next to it that it imports, and the files that its author includes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cnai.errors import UsageError
from cnai.publication import MOST_BYTES, MOST_FILES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cnai.foreign import Notebook


def modules(folder: Path, notebook: Notebook) -> set[Path]:
    """Return the files in `folder` of the modules that a notebook imports, directly or through each other."""
    from cnai.engine.capture.imports import imports_of, is_too_large, local_files

    names = {name for cell in notebook["cells"] for name in imports_of(_code(cell))}
    inside = {file for file in local_files(names, [str(folder)]).values() if folder in file.parents}
    return {file for file in inside if not is_too_large(file)}


def included(
    folder: Path, names: Iterable[str | Path], modules: Iterable[Path] = (), *, tell: Callable[[str], None]
) -> set[Path]:
    """Return `modules` and the files that `names` of files and folders stand for; all must be in `folder`.

    Links to files elsewhere are left out; `tell` is called with one line for each.
    """
    from cnai.engine.capture.imports import files_in

    def follows(link: Path) -> bool:
        is_inside = link.exists() and folder in link.resolve().parents
        if not is_inside:
            tell(f"left out: {link.relative_to(folder)}, a link to {link.readlink()}; copy what the app needs")
        return is_inside

    found = set(modules)
    _check("the modules it imports", found)
    for name in names:
        path = _inside(folder, name)
        found.update(files_in(path, follows=follows) if path.is_dir() else [path])
        _check(name, found)
    return found


def _inside(folder: Path, name: str | Path) -> Path:
    """Return the path of a file or folder in `folder`, as the notebook will name it: links are not resolved."""
    path = Path(os.path.normpath(folder / Path(name).expanduser()))
    if folder not in (path, *path.parents):  # its author may have named the folder by a link
        path = path.resolve()
    if not path.exists():
        raise UsageError(f"{name} does not exist in {folder}; include files and folders next to the notebook")
    if folder not in (path, *path.parents) or folder not in (path.resolve(), *path.resolve().parents):
        raise UsageError(f"{name} is not inside {folder}; copy what the app needs next to the notebook")
    return path


def _check(name: str | Path, found: set[Path]) -> None:
    size = sum(file.stat().st_size for file in found)
    if len(found) > MOST_FILES or size > MOST_BYTES:
        raise UsageError(
            f"with {name} the app has {len(found)} files of {size / 2**20:.0f} MiB; allowed: {MOST_FILES} files, "
            f"{MOST_BYTES // 2**20} MiB; include less, read large data from where it is"
        )


def _code(cell: Notebook) -> str:
    """Return a code cell's source as Python, with magics translated; "" for other cells."""
    from IPython.core.inputtransformer2 import TransformerManager

    source = "".join(cell.get("source", ""))
    if cell.get("cell_type") != "code":
        return ""
    while source.lstrip().startswith("%%"):  # most have a body of Python: cnai, time, capture
        source = source.lstrip().partition("\n")[2]
    return TransformerManager().transform_cell(source)
