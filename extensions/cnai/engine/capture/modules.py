"""Local modules: the files beside a notebook or script that its code imports, frozen into a zip."""

from __future__ import annotations

import dis
import importlib
import io
import os
import sys
import zipfile
from importlib.machinery import PathFinder
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING

from cnai.engine.capture import sources
from cnai.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LIMIT_BYTES = 50_000_000
DATA_BYTES = 1_000_000
_NEVER = {"__main__", "__mp_main__", "cnai", "cnai_hub"}
_NO_CODE = {"__pycache__", "node_modules", "site-packages"}


def freeze(codes: Iterable[CodeType], folders: Iterable[str] = ()) -> tuple[bytes, list[str]]:
    """Return the zip of all local modules that are imported here or that code imports (b"" without any), and warnings.

    Local is what lies in `folders`, the working directory or any other folder of `sys.path` that holds no installed
    packages. Files are read now, whatever an older import left in this process. Equal files give equal bytes.
    """
    importlib.invalidate_caches()
    path = list(dict.fromkeys([*folders, _here(), *(entry or _here() for entry in sys.path)]))
    files: dict[str, Path] = {}
    waiting = {*_imported(), *(name for code in codes for name in imports(code))} - _NEVER
    done: set[str] = set()
    while waiting:
        name = waiting.pop()
        done.add(name)
        found = dict(_files_of(name, path))
        files.update(found)
        waiting |= {other for file in found.values() for other in _imports_of(file)} - done - _NEVER
    return _zip(files)


def _here() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 # text, as in sys.path
    except OSError:  # deleted under the notebook
        return "/nowhere"


def _imported() -> set[str]:
    """Return the top-level names of the local modules in this process."""
    return {
        name.partition(".")[0]
        for name, module in list(sys.modules.items())
        if (file := getattr(module, "__file__", None)) and not sources.is_library(file) and not sources.is_own(file)
    }


def imports(code: CodeType) -> Iterator[str]:
    """Yield the top-level names that code imports, also inside functions."""
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME" and step.argval:
            yield step.argval.partition(".")[0]
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from imports(inner)


def _imports_of(file: Path) -> Iterator[str]:
    if file.suffix != ".py":
        return
    try:
        code = compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
    except (SyntaxError, ValueError):  # the rank says so if it is imported there
        return
    yield from imports(code)


def _files_of(name: str, path: list[str]) -> Iterator[tuple[str, Path]]:
    """Yield the files of a top-level module by the names under which they are imported."""
    try:
        spec = PathFinder.find_spec(name, path)
    except (ImportError, ValueError):
        return
    if spec is None:
        return
    for folder in spec.submodule_search_locations or ():
        if _is_local(folder):
            yield from _walk(Path(folder), name, with_data=spec.origin is not None)
    if not spec.submodule_search_locations and spec.origin and spec.origin.endswith(".py") and _is_local(spec.origin):
        yield f"{name}.py", Path(spec.origin)


def _is_local(file: str) -> bool:
    return not sources.is_library(file + "/") and not sources.is_own(file + "/") and Path(file).exists()


def _walk(folder: Path, name: str, *, with_data: bool) -> Iterator[tuple[str, Path]]:
    """Yield a package's files; a folder without `__init__.py` gives its code only."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(
            f for f in folders if f[0] != "." and f not in _NO_CODE and not Path(place, f, "pyvenv.cfg").exists()
        )
        for file in sorted(files):
            if file.endswith(".py") or (with_data and file[0] != "." and not file.endswith(".pyc")):
                full = Path(place, file)
                yield f"{name}/{full.relative_to(folder)}", full


def _zip(files: dict[str, Path]) -> tuple[bytes, list[str]]:
    contents: dict[str, bytes] = {}
    left_out = []
    for name, file in sorted(files.items()):
        try:
            size = file.stat().st_size
            if file.suffix != ".py" and size > DATA_BYTES:
                left_out.append(
                    f"{file} ({size / 1e6:.0f} MB) is no code and stays here; read it by its full path in the ranks"
                )
                continue
            contents[name] = file.read_bytes() if size <= LIMIT_BYTES else b""
        except OSError as error:
            raise CaptureError(
                f"local module {file} can't be read: {error.strerror}; make it readable or move it away"
            ) from None
        if size > LIMIT_BYTES or sum(map(len, contents.values())) > LIMIT_BYTES:
            raise CaptureError(
                f"local modules take more than {LIMIT_BYTES // 1_000_000} MB (at {file}); move data out of packages, "
                "or install the package"
            )
    if not contents:
        return b"", left_out
    with io.BytesIO() as buffer:
        # Stored and dated the same: the bytes depend on names and contents only, not on clocks and zlib's version.
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name, content in contents.items():
                archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), content)
        return buffer.getvalue(), left_out
