"""Sources: the names and texts of a target's code, so that a rank can show its lines."""

from __future__ import annotations

import linecache
import re
import site
import sys
import sysconfig
from functools import cache
from pathlib import Path

_OWN = str(Path(__file__).parents[2])


def shown_name(filename: str) -> str:
    """Return `Cell [12]` for the code of a notebook's cell, other file names unchanged."""
    number = _cell_number(filename)
    if number is not None:
        return f"Cell [{number}]"
    return "Cell" if "ipykernel_" in filename else filename


def _cell_number(filename: str) -> str | None:
    if match := re.match(r"<ipython-input-(\d+)-", filename):
        return match[1]
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    label = shell.compile.format_code_name(filename) if shell is not None else None
    match = re.search(r"\d+", label[1]) if label else None
    return match[0] if match else None


def text_of(filename: str) -> str:
    """Return the source behind a code object's file name, "" if it is not available."""
    linecache.checkcache(filename)
    return "".join(linecache.getlines(filename))


def remember(shown: str, text: str) -> None:
    """Let tracebacks find the lines of a source that is not a file on this machine."""
    # Without an mtime, linecache.checkcache never drops the entry.
    linecache.cache[shown] = (len(text), None, text.splitlines(keepends=True), shown)


def travels(filename: str) -> bool:
    """Tell whether a source is the user's own and must travel; libraries are in the rank's image."""
    return not is_library(filename) and not is_own(filename)


def is_own(filename: str) -> bool:
    """Tell whether a file belongs to cnai."""
    return filename.startswith(_OWN + "/")


def is_library(filename: str) -> bool:
    """Tell whether a file belongs to Python or to an installed package."""
    return filename.startswith(("<frozen ", "<__array_function__", *library_folders()))


@cache
def library_folders() -> tuple[str, ...]:
    """Return the folders that hold Python and installed packages, each with a trailing slash."""
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    paths += [*site.getsitepackages(), site.getusersitepackages(), sys.prefix, sys.base_prefix]
    folders = {folder for path in paths for folder in (path, str(Path(path).resolve()))}
    return tuple(sorted(folder.rstrip("/") + "/" for folder in folders if folder not in {"/", "/usr"}))
