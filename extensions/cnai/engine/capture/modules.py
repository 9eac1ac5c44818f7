"""Local modules: the files that a notebook's or script's code imports from its surroundings, frozen into a zip."""

from __future__ import annotations

import io
import sys
import zipfile
from typing import TYPE_CHECKING

from cnai.engine.capture import sources
from cnai.engine.capture.imports import imports, is_too_large, local_files
from cnai.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import CodeType

LIMIT_BYTES = 50_000_000


def freeze(codes: Iterable[CodeType], folders: Iterable[str] = ()) -> tuple[bytes, list[str]]:
    """Return a zip of the local modules that `codes` import or this process has imported (b"" if none), and warnings.

    Reads the files now, even if this process imported an older version of them. Equal files give equal bytes.
    """
    return _zip(local_files({*_imported(), *(name for code in codes for name in imports(code))}, folders))


def _imported() -> set[str]:
    """Return the top-level names of the local modules that this process has imported."""
    return {
        name.partition(".")[0]
        for name, module in list(sys.modules.items())
        if (file := getattr(module, "__file__", None)) and not sources.is_library(file) and not sources.is_own(file)
    }


def _zip(files: dict[str, Path]) -> tuple[bytes, list[str]]:
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
        return b"", left_out
    with io.BytesIO() as buffer:
        # Uncompressed, with a fixed date: the bytes then depend only on names and contents, not on clocks or zlib.
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name, content in contents.items():
                archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), content)
        return buffer.getvalue(), left_out
