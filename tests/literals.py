"""The texts in our sources, for tests that let a name be written in one place only."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@cache
def literals() -> dict[str, tuple[str, ...]]:
    """Return the texts of each module of cnai and its hub, but for docstrings."""
    paths = [path for folder in ("extensions", "hub") for path in sorted((ROOT / folder).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): _texts(ast.parse(path.read_text())) for path in paths}


def _texts(tree: ast.Module) -> tuple[str, ...]:
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in alone]
    return tuple(node.value for node in nodes if isinstance(node.value, str))
