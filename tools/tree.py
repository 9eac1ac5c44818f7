"""The map of the tree in the README: folders with the first lines of their docstrings."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("extensions/cnai", "hub/cnai_hub")
# In the order of the map; folders without a docstring have their text here.
FOLDERS = {
    "images": "container images: `catalog.toml` lists images and flavors; `make images` builds each folder",
    "extensions/cnai": "",
    "hub": "the hub's configuration, one call of `cnai_hub.configure`",
    "hub/cnai_hub": "",
    "templates": "pages of the hub, and of published notebooks",
    "notebooks": "notebooks for newcomers; executed by the tests, saved without outputs",
    "bench": "",
    "tests": "mirror the tree; `tests/browser` drives a real Chromium, `tests/cluster` a real Kubernetes",
    "tools": "programs of the Makefile: setup, locks, lint",
    "locks": "every package, pinned with its hashes",
    "docs": "first run, how it works, glossary, administrators, images, reference, benchmarks, public programs",
}


def tree() -> str:
    """Return the map as Markdown."""
    rows = [row for folder, text in FOLDERS.items() if (ROOT / folder).is_dir() for row in _rows(folder, text)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(["```", *(f"{name:{width}}  {text}".rstrip() for name, text in rows), "```", ""])


def first_line(module: Path) -> str:
    """Return the first sentence of a module's docstring, without a leading name and its period."""
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    line = docstring.partition("\n")[0].partition(". ")[0]
    head, colon, rest = line.partition(": ")
    return (rest if colon and " " not in head else line).rstrip(".")


def _rows(folder: str, text: str) -> list[tuple[str, str]]:
    package = ROOT / folder / "__init__.py"
    rows = [(f"{folder}/", text or (first_line(package) if package.is_file() else ""))]
    return rows + _parts(ROOT / folder, 1) if folder in PACKAGES else rows


def _parts(folder: Path, depth: int) -> list[tuple[str, str]]:
    """Return the modules of a folder, then its packages; below the first level only packages."""
    modules = sorted(folder.glob("*.py")) if depth == 1 else []
    rows = [(f"{'  ' * depth}{path.name}", first_line(path)) for path in modules if path.name != "__init__.py"]
    for package in sorted(folder.glob("*/__init__.py")):
        rows.append((f"{'  ' * depth}{package.parent.name}/", first_line(package)))
        rows += _parts(package.parent, depth + 1)
    return rows
