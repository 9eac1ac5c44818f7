"""Words: splits the line of a magic into words and keeps Python literals intact."""

from __future__ import annotations

import shlex

from cnai.errors import UsageError

_CLOSING = {"(": ")", "[": "]", "{": "}"}


class Word(str):
    """A word without its quotes, as in a shell; `raw` keeps the quotes, because Python literals need them."""

    __slots__ = ("raw",)
    raw: str

    def __new__(cls, raw: str) -> Word:
        """Remove the quotes."""
        try:
            parts = shlex.split(raw)
        except ValueError:  # an unpaired quote inside brackets
            parts = []
        word = super().__new__(cls, parts[0] if len(parts) == 1 else raw)
        word.raw = raw
        return word


def split(line: str) -> list[Word]:
    """Split a line into words at blanks, but not inside quotes, (), [] and {}."""
    words: list[str] = [""]
    closers: list[str] = []
    quote = ""
    for char in line:
        if char.isspace() and not closers and not quote:
            words.append("")
            continue
        words[-1] += char
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in _CLOSING:
            closers.append(_CLOSING[char])
        elif closers and char == closers[-1]:
            closers.pop()
    if quote or closers:
        raise UsageError(f"a closing {quote or closers[-1]} is missing in: {line.strip()}")
    return [Word(raw) for raw in words if raw]
