"""Terminal output: each step with its time, as it happens."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_WIDTH = 66


class Steps:
    """Writes a line per step; on a terminal the line is updated while the step runs."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out, self._began = out, time.monotonic()

    @contextmanager
    def step(self, what: str) -> Iterator[Callable[[str], None]]:
        """Time a step; yield a function that shows its progress."""
        began = time.monotonic()
        self._show(f"  … {what}")
        try:
            yield lambda how_far: self._show(f"  … {what} ({how_far})")
        except BaseException:
            self._end("✗", what, began)
            raise
        self._end("✓", what, began)

    def say(self, text: str = "") -> None:
        """Write a line."""
        self._out.write(text + "\n")
        self._out.flush()

    @property
    def seconds(self) -> float:
        """Time since the first line."""
        return time.monotonic() - self._began

    def _show(self, text: str) -> None:
        if self._out.isatty():
            self._out.write(f"\r\033[K{text}")
            self._out.flush()

    def _end(self, sign: str, what: str, began: float) -> None:
        self._show("")
        self.say(f"  {sign} {what:<{_WIDTH}} {time.monotonic() - began:6.1f} s")
