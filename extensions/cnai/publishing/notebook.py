"""Notebook: reads the notebook to publish, and derives the app's name and title from it."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from cnai.errors import UsageError
from cnai.publication import LONGEST_SLUG, checked_slug

if TYPE_CHECKING:
    from cnai.foreign import Notebook

_KERNEL = "python3"
_PATH = re.compile(r"""["'](/[^"'\n]{1,500})["']""")

# Letters that Unicode doesn't decompose into ASCII letters and marks.
_LATIN = str.maketrans(
    dict(zip("абвгдезиклмнопрстуфыэ", "abvgdeziklmnoprstufye", strict=True))
    | dict(zip("αβγδεζηικλμνξοπρσςτυφω", "abgdeziiklmnxoprsstyfo", strict=True))
    | dict(zip("øłđðı", "olddi", strict=True))
    | {"ж": "zh", "\u0445": "kh", "ц": "ts", "ч": "ch", "ш": "sh", "щ": "shch", "ъ": "", "ь": "", "ю": "yu", "я": "ya"}
    | {"θ": "th", "χ": "ch", "ψ": "ps", "ß": "ss", "æ": "ae", "œ": "oe", "þ": "th"}
)


def read(path: Path) -> Notebook:
    """Return a notebook's JSON."""
    if not path.exists():
        near = sorted(other.name for other in path.parent.glob("*.ipynb")) if path.parent.is_dir() else []
        raise UsageError(f"{path} does not exist; notebooks in that folder: {', '.join(near) or 'none'}")
    try:
        content: Notebook = json.loads(path.read_text(encoding="utf-8"))
        content["cells"], content["nbformat"]
    except (ValueError, KeyError, TypeError, OSError):
        raise UsageError(f"{path} is not a notebook; give a file that JupyterLab saved as .ipynb") from None
    return content


def check_kernel(path: Path, content: Notebook) -> None:
    """Raise UsageError unless the notebook's kernel is the Python of this installation, which apps use."""
    metadata = content.get("metadata") or {}
    spec = metadata.get("kernelspec") or {}
    language = spec.get("language") or (metadata.get("language_info") or {}).get("name") or "python"
    kernel = spec.get("name") or _KERNEL
    if language != "python" or not _is_ours(kernel):
        raise UsageError(
            f"{path} uses the kernel {spec.get('display_name') or kernel!r} ({language}); an app runs the Python of "
            "cnai's own installation; choose the kernel Python 3 (ipykernel) in the notebook and save it"
        )


def _is_ours(kernel: str) -> bool:
    """Tell whether a kernel runs this Python; links are not resolved, since environments link to the same program."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    if kernel == _KERNEL:
        return True
    try:
        program = Path(KernelSpecManager().get_kernel_spec(kernel).argv[0])
    except NoSuchKernel:
        return False
    return program.name.startswith("python") and program.parent in (Path(), Path(sys.executable).parent)


def bare(content: Notebook) -> Notebook:
    """Return a notebook's JSON without outputs, which apps don't show."""
    cells = [{**cell, "outputs": []} if "outputs" in cell else cell for cell in content["cells"]]
    return {**content, "cells": cells}


def files_of(home: Path, content: Notebook) -> list[str]:
    """Return the absolute paths of files below `home` that a notebook's code names."""
    code = ["".join(cell.get("source", "")) for cell in content["cells"] if cell.get("cell_type") == "code"]
    named = dict.fromkeys(name for source in code for name in _PATH.findall(source))
    return [name for name in named if home in Path(name).parents and Path(name).exists()]


def slug_from(name: str) -> str:
    """Return an app's name derived from a notebook's: `01 First run!` becomes `01-first-run`.

    A name in letters that have no usual Latin form gets digits that tell it from other such names.
    """
    plain = unicodedata.normalize("NFKD", name.lower()).translate(_LATIN)
    is_whole = all(letter.isascii() or not letter.isalnum() for letter in plain)
    mark = "" if is_whole else f"-{hashlib.sha256(plain.encode(errors='replace')).hexdigest()[:6]}"
    words = re.sub(r"[^a-z0-9]+", "-", plain.encode("ascii", "ignore").decode()).strip("-") or "app"
    return checked_slug(words[: LONGEST_SLUG - len(mark)].strip("-") + mark)


def heading(content: Notebook) -> str:
    """Return the notebook's first heading."""
    for cell in content["cells"]:
        text = "".join(cell.get("source", ""))
        if cell.get("cell_type") == "markdown" and (found := re.search(r"^#{1,2}\s+(.+)$", text, re.MULTILINE)):
            return re.sub(r"[*_`]", "", found[1]).strip()
    return ""
