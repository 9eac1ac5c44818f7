"""Words: how the line of a magic is cut, so that Python literals survive."""

from __future__ import annotations

import shlex

from cnai.errors import UsageError

_CLOSING = {"(": ")", "[": "]", "{": "}"}


class Word(str):
    """A word without its quotes, as a shell gives it; `raw` still has them, since Python literals need theirs."""

    __slots__ = ("raw",)
    raw: str

    def __new__(cls, raw: str) -> Word:
        """Take the quotes off."""
        try:
            parts = shlex.split(raw)
        except ValueError:  # a lone quote inside brackets
            parts = []
        word = super().__new__(cls, parts[0] if len(parts) == 1 else raw)
        word.raw = raw
        return word


def split(line: str) -> list[Word]:
    """Cut a line into words; blanks inside quotes, (), [] and {} don't separate."""
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
