"""Project: imports the frozen local modules in a rank as if they were the files of the author's project.

The code is the run's copy, but `__file__`, `__path__`, `sys.path` and the code's file names are those of the project,
so that a module finds its data and writes its outputs where it does under plain Python. Where a folder of the project
doesn't exist, such as on a node that doesn't mount it, its modules are imported from the copy.
"""

from __future__ import annotations

import importlib.util
import sys
from contextlib import suppress
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnai.engine.capture import sources, tracebacks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import ModuleType

Roots = dict[str, list[str]]
"""The folders of `sys.path` that modules come from, in order, with the paths of the frozen files in them."""


class Project:
    """The frozen files of a run: `copies` maps the author's paths to the copies."""

    def __init__(self, roots: Roots, path: Iterable[str], code_dir: Path) -> None:
        here = {root: files for root, files in roots.items() if any(Path(root, file).exists() for file in files)}
        self.absent = [root for root in roots if root not in here]
        self.path = [*(root for root in path if root in here), *([str(code_dir)] if self.absent or not roots else [])]
        self.copies = {f"{root}/{file}": str(code_dir / file) for root, files in here.items() for file in files}
        self.folders = {str(folder) for root, files in here.items() for file in files for folder in _above(root, file)}
        self._code_dir = code_dir
        self._roots = roots

    def install(self) -> None:
        """Put the project's folders first on `sys.path`, and import the frozen files in their place."""
        sys.path[:0] = self.path
        sys.path_hooks.insert(0, self._finder)
        self._forget_finders()
        if self.absent or not self._roots:  # payloads of older versions name no roots
            tracebacks.hide_folder(self._code_dir)

    def remove(self) -> None:
        """Let Python import the project's files again; `sys.path` is the caller's to restore."""
        sys.path_hooks.remove(self._finder)
        self._forget_finders()

    def misses(self) -> list[str]:
        """Return the absent files whose code uses `__file__`, which here is not what it is in the project."""
        return [
            f"{root}/{file}"
            for root in self.absent
            for file in self._roots[root]
            if file.endswith(".py") and b"__file__" in (self._code_dir / file).read_bytes()
        ]

    def _finder(self, folder: str) -> FileFinder:
        if folder not in self.folders:
            raise ImportError
        return _Finder(folder, self)

    def _forget_finders(self) -> None:
        for folder in self.folders:
            sys.path_importer_cache.pop(folder, None)


def _above(root: str, file: str) -> list[Path]:
    """Return the folders of a file, up to the root."""
    return [Path(root, folder) for folder in Path(file).parents]


class _Finder(FileFinder):
    """Finds the modules in one folder of the project; modules that are not frozen are found as Python finds them."""

    def __init__(self, folder: str, project: Project) -> None:
        loaders = (
            (ExtensionFileLoader, EXTENSION_SUFFIXES),
            (SourceFileLoader, SOURCE_SUFFIXES),
            (SourcelessFileLoader, BYTECODE_SUFFIXES),
        )
        super().__init__(folder, *loaders)
        self._folder = folder
        self._project = project

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        base = f"{self._folder}/{fullname.rpartition('.')[2]}"
        for stem, places in ((f"{base}/__init__", [base]), (base, None)):
            for suffix in (*EXTENSION_SUFFIXES, *SOURCE_SUFFIXES):
                if copy := self._project.copies.get(stem + suffix):
                    return _spec(fullname, stem + suffix, copy, places)
        found = super().find_spec(fullname, target)
        if base in self._project.folders and (found is None or found.loader is None):
            found = ModuleSpec(fullname, None, is_package=True)
            found.submodule_search_locations = [base]
        return found


def _spec(name: str, file: str, copy: str, places: list[str] | None) -> ModuleSpec | None:
    loader = _Source(name, file, copy) if file.endswith(tuple(SOURCE_SUFFIXES)) else _Extension(name, file, copy)
    return importlib.util.spec_from_file_location(name, loader.path, loader=loader, submodule_search_locations=places)


class _Source(SourceFileLoader):
    """Loads a module of the project from its copy, whose bytecode is cached beside the copy."""

    def __init__(self, fullname: str, path: str, copy: str) -> None:
        super().__init__(fullname, path)
        cached = importlib.util.cache_from_source
        self._copies = {path: copy, cached(path): cached(copy)}

    def create_module(self, spec: ModuleSpec) -> None:
        """Let tracebacks and `inspect` show the lines that run: the file may have been edited since."""
        with suppress(ImportError, SyntaxError):  # the import itself will report the error
            sources.remember(self.path, self.get_source(spec.name) or "")

    def path_stats(self, path: str) -> Mapping[str, Any]:
        return super().path_stats(self._copies.get(path, path))

    def get_data(self, path: str) -> bytes:
        return super().get_data(self._copies.get(path, path))

    def set_data(self, path: str, data: Sequence[int], *, _mode: int = 0o666) -> None:  # type: ignore[override]
        super().set_data(self._copies.get(path, path), data, _mode=_mode)  # type: ignore[arg-type]


class _Extension(ExtensionFileLoader):
    """Loads a compiled module from its copy, the path that the dynamic linker needs."""

    def __init__(self, name: str, file: str, copy: str) -> None:
        super().__init__(name, copy)
        self._file = file

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = self._file
        super().exec_module(module)
