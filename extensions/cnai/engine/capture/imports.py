"""Imports: finds the local files that code imports, in the places where Python itself would find them.

Every import statement counts, also inside functions, `try` and `if TYPE_CHECKING`: an unneeded module costs a few
bytes, a missing module fails the run.
"""

from __future__ import annotations

import ast
import dis
import importlib
import os
import sys
import warnings
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING

from cnai.engine.capture import sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

DATA_BYTES = 1_000_000
"""Larger files of a package do not travel unless they are code."""
_NEVER = {"__main__", "__mp_main__", "cnai", "cnai_hub"}
_NO_CODE = {"__pycache__", "node_modules", "site-packages"}
_CODE = (".py", *EXTENSION_SUFFIXES)


def local_files(
    names: Iterable[str], folders: Iterable[str] = (), homes: Mapping[str, str] | None = None
) -> dict[str, Path]:
    """Return the files of the named top-level modules and of all modules these import, by their import paths.

    A module is local if it lies in `folders`, in the working directory or in another folder of `sys.path` that holds
    no installed packages; other modules are left out. A package contributes all its files, a folder without
    `__init__.py` only its code. `homes` names the folders in which modules were found before.
    """
    importlib.invalidate_caches()
    path = list(dict.fromkeys(str(Path(_here(), entry)) for entry in [*folders, "", *sys.path]))
    files: dict[str, Path] = {}
    waiting, done = set(names), set(_NEVER)
    while waiting := waiting - done:
        name = waiting.pop()
        done.add(name)
        home = (homes or {}).get(name)
        for inside, file in _files_of(name, [home, *path] if home else path):
            # When two folders form one package without `__init__.py`, the first wins here as it does in the rank.
            if files.setdefault(inside, file) is file and file.suffix == ".py":
                waiting.update(_imports_of(file))
    return files


def _here() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 # a str, as in sys.path
    except OSError:  # the folder was deleted while the notebook ran in it
        return "/nowhere"


def imports(code: CodeType) -> Iterator[str]:
    """Yield the top-level names that code imports, also inside functions; relative imports are skipped."""
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
    for position, step in enumerate(steps):
        # Two instructions precede IMPORT_NAME: they load the level (the number of dots) and the names after `import`.
        if step.opname == "IMPORT_NAME" and not steps[position - 2].argval:
            yield step.argval.partition(".")[0]
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from imports(inner)


@lru_cache(maxsize=1000)
def imports_of(source: str | bytes, filename: str = "<source>") -> frozenset[str]:
    """Return the top-level names that a module or a notebook's cell imports; none if the source is not valid Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the user sees them when the code runs
            code = compile(source, filename, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):  # the import itself will report the error
        return frozenset()
    return frozenset(imports(code))


def _imports_of(file: Path) -> frozenset[str]:
    try:
        return imports_of(file.read_bytes(), str(file))
    except OSError:  # the caller reads the file later and reports the error then
        return frozenset()


def is_code(file: Path) -> bool:
    """Tell whether Python can import a file."""
    return file.name.endswith(_CODE)


def is_too_large(file: Path) -> bool:
    """Tell whether a file is data that should not travel with code."""
    return not is_code(file) and file.stat().st_size > DATA_BYTES


def _files_of(name: str, path: list[str]) -> Iterator[tuple[str, Path]]:
    """Yield the files of a top-level module with their import paths."""
    if _is_standard(name):
        return
    try:
        spec = PathFinder.find_spec(name, path)
    except (ImportError, ValueError):
        return
    if spec is None:
        return
    for folder in map(Path, spec.submodule_search_locations or ()):
        if _is_local(str(folder)):
            found = files_in(folder)
            whole = spec.origin is not None
            yield from ((f"{name}/{file.relative_to(folder)}", file) for file in found if whole or is_code(file))
    if not spec.submodule_search_locations and spec.origin and _is_local(spec.origin) and is_code(Path(spec.origin)):
        yield Path(spec.origin).name, Path(spec.origin)


def _is_standard(name: str) -> bool:
    """Tell whether no local file can shadow this standard module: it is built in, or loaded in every process."""
    file = getattr(sys.modules.get(name), "__file__", None)
    loaded = name in sys.modules and name in sys.stdlib_module_names and (file is None or sources.is_library(file))
    return loaded or name in sys.builtin_module_names


def _is_local(file: str) -> bool:
    return not sources.is_library(file + "/") and not sources.is_own(file + "/") and Path(file).exists()


def files_in(
    folder: Path, *, follows: Callable[[Path], bool] = lambda _: True, above: tuple[Path, ...] = ()
) -> Iterator[Path]:
    """Yield the files in and below a folder, without hidden files, caches and virtual environments.

    Follows the links that `follows` admits, unless they lead back to a folder in `above`.
    """
    real = folder.resolve()
    if real in above:
        return
    try:
        with os.scandir(folder) as entries:  # unlike Path, it needs no system call per entry to tell files from folders
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:  # Python could not import from it either
        return
    for entry in found:
        if entry.name[0] == "." or entry.name.endswith(".pyc"):
            continue
        if entry.is_symlink() and not follows(folder / entry.name):
            continue
        if entry.is_file():
            yield folder / entry.name
        elif entry.is_dir() and entry.name not in _NO_CODE and not Path(entry, "pyvenv.cfg").exists():
            yield from files_in(folder / entry.name, follows=follows, above=(*above, real))
