"""Writes the references of pushed images into a catalog; comments and everything else stay."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TABLE = re.compile(r"\s*\[")
_IMAGE = re.compile(r"\s*\[\[\s*image\s*\]\]")
_DOCKERFILE = re.compile(r"""\s*dockerfile\s*=\s*["']([^"'/]+)/Dockerfile["']""")
_REFERENCE = re.compile(r"\s*reference\s*=")


def write(text: str, references: Mapping[str, str]) -> str:
    """Return a catalog's text with a reference in every image whose Dockerfile was built."""
    tables = [_with_reference(table, references) for table in _tables(text)]
    return "".join(line for table in tables for line in table)


def _tables(text: str) -> Iterator[list[str]]:
    """Yield the lines of each table, after the lines before the first table."""
    table: list[str] = []
    for line in text.splitlines(keepends=True):
        if _TABLE.match(line):
            yield table
            table = []
        table.append(line)
    yield table


def _with_reference(table: list[str], references: Mapping[str, str]) -> list[str]:
    found = next(((n, m[1]) for n, line in enumerate(table) if (m := _DOCKERFILE.match(line))), None)
    if not found or found[1] not in references or not _IMAGE.match(table[0]):
        return table
    number, name = found
    end = "" if table[number].endswith("\n") else "\n"
    line = f'{end}reference = "{references[name]}"\n'
    kept = [*table[: number + 1], line, *table[number + 1 :]]
    return [old for place, old in enumerate(kept) if place == number + 1 or not _REFERENCE.match(old)]
