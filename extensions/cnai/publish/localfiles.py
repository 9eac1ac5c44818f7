"""Local files of a notebook: the modules next to it that it imports, and what its author includes by name."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

from cnai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cnai.foreign import Notebook

MOST_FILES = 500
MOST_BYTES = 50 * 2**20
_SKIPPED = {"__pycache__", "node_modules"}


def modules(folder: Path, notebook: Notebook) -> set[Path]:
    """Return the Python files in `folder` that a notebook imports, directly or through each other."""
    found: set[Path] = set()
    waiting = [source for cell in notebook["cells"] if (source := _code(cell))]
    while waiting:
        for name in _imports(waiting.pop()):
            for file in _module_files(folder, name):
                if file not in found:
                    found.add(file)
                    waiting.append(file.read_text(encoding="utf-8", errors="replace"))
    return found


def included(folder: Path, names: Iterable[str | Path]) -> set[Path]:
    """Return the files that names of files and folders stand for; all must be in the notebook's folder."""
    found: set[Path] = set()
    for name in names:
        path = (folder / Path(name).expanduser()).resolve()
        if not path.exists():
            raise UsageError(f"{name} does not exist in {folder}; include files and folders next to the notebook")
        if path == folder or folder not in path.parents:
            raise UsageError(f"{name} is not inside {folder}; copy what the app needs next to the notebook")
        found.update(_walk(path) if path.is_dir() else [path])
        _check(name, found)
    return found


def _check(name: str | Path, found: set[Path]) -> None:
    size = sum(file.stat().st_size for file in found)
    if len(found) > MOST_FILES or size > MOST_BYTES:
        raise UsageError(
            f"with {name} the app has {len(found)} files of {size / 2**20:.0f} MiB; allowed: {MOST_FILES} files, "
            f"{MOST_BYTES // 2**20} MiB; include less, read large data from where it is"
        )


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in _SKIPPED or path.is_symlink():
            continue
        if path.is_dir():
            yield from _walk(path)
        elif path.is_file():
            yield path


def _code(cell: Notebook) -> str:
    """Return a code cell's Python, magics translated; empty if it is none."""
    from IPython.core.inputtransformer2 import TransformerManager

    source = "".join(cell.get("source", ""))
    if cell.get("cell_type") != "code":
        return ""
    if source.startswith("%%cnai"):  # its body is Python that runs in ranks
        source = source.partition("\n")[2]
    return TransformerManager().transform_cell(source)


def _imports(source: str) -> set[str]:
    """Return the first parts of the names of all modules that a source imports absolutely."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def _module_files(folder: Path, name: str) -> list[Path]:
    """Return the file of a module, or all Python files of a package; none if it is not local."""
    if (package := folder / name / "__init__.py").is_file():
        return [file for file in _walk(package.parent) if file.suffix == ".py"]
    module = folder / f"{name}.py"
    return [module] if module.is_file() else []
