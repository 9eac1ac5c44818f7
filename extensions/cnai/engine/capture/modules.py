"""Local modules: the files that a notebook's or script's code imports from its surroundings, frozen into a zip."""

from __future__ import annotations

import io
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cnai.engine.capture import sources
from cnai.engine.capture.imports import imports, is_too_large, local_files
from cnai.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType

    from cnai.engine.capture.project import Roots

LIMIT_BYTES = 50_000_000


@dataclass(frozen=True)
class Modules:
    """Local modules, frozen: a zip (b"" if there are none), the folders that its files come from, and warnings."""

    code_zip: bytes
    roots: Roots
    path: list[str]
    """The roots that come first on the rank's `sys.path`."""
    warnings: list[str]


def freeze(codes: Iterable[CodeType], folders: Iterable[str] = ()) -> Modules:
    """Freeze the local modules that `codes` import; without `folders`, also those that this process has imported.

    Reads the files now, even if this process imported an older version of them. Equal files give equal bytes.
    """
    folders = list(folders)
    homes = {} if folders else _homes()  # a script is a program of its own and knows nothing of the notebook's imports
    names = {name for code in codes for name in imports(code)}
    code_zip, frozen, left_out = _zip(local_files({*homes, *names}, folders, homes))
    roots = _roots(frozen)
    # A script has the working directory last on its path, as `python script.py` does not have it at all.
    first = [root for root in roots if not folders or root in {*folders, *sys.path}]
    return Modules(code_zip, roots, first, left_out)


def _homes() -> dict[str, str]:
    """Return the local modules that this process has imported, by top-level name, with the folder each was found in.

    The folder may have left `sys.path` since then: its entry `""` is the working directory, which `%cd` changes.
    Some modules of torch have a relative `__file__` that names no file.
    """
    homes = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if file.startswith("/") and not sources.is_library(file) and not sources.is_own(file):
            above = name.count(".") + hasattr(module, "__path__")
            homes[name.partition(".")[0]] = str(Path(file).parents[above])
    return homes


def _roots(files: dict[str, Path]) -> Roots:
    roots: Roots = {}
    for inside, file in files.items():
        roots.setdefault(str(file)[: -len(inside) - 1], []).append(inside)
    return {root: sorted(inside) for root, inside in roots.items()}


def _zip(files: dict[str, Path]) -> tuple[bytes, dict[str, Path], list[str]]:
    contents: dict[str, bytes] = {}
    left_out = []
    for name, file in sorted(files.items()):
        try:
            size = file.stat().st_size
            if is_too_large(file):
                left_out.append(
                    f"{file} ({size / 1e6:.0f} MB) isn't code and doesn't travel; read it by its full path in the ranks"
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
        return b"", {}, left_out
    with io.BytesIO() as buffer:
        # Uncompressed, with a fixed date: the bytes then depend only on names and contents, not on clocks or zlib.
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name, content in contents.items():
                archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), content)
        return buffer.getvalue(), {name: file for name, file in files.items() if name in contents}, left_out
