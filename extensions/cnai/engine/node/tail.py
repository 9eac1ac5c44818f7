"""Tail: turns a rank's growing log file into log events."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cnai.events import Event, Log

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

LIMIT_BYTES = 64 * 1024
SKIP_BYTES = 1024 * 1024
"""If a rank prints more than this between two reads, events contain only the last 64 KiB of it."""


class Tail:
    """Reads the new complete lines of a log file. A carriage return, which progress bars use, ends a line, too."""

    def __init__(self, path: Path, run_id: str, generation: int, rank: int) -> None:
        self._path, self._run_id, self._generation, self._rank = path, run_id, generation, rank
        self._file: FileIO | None = None
        self._rest = b""
        self._skipped = 0

    def read(self) -> str:
        """Return the new output as a log event's JSON line, "" if there is none."""
        new = self._new_bytes()
        if not new:
            return ""
        text = self._rest + new
        end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        self._rest = text[end:]
        return self._event(text[:end])

    def finish(self) -> str:
        """Return the remaining output, even an incomplete line, and close the file."""
        last = self._rest + self._new_bytes()
        if self._file is not None:
            self._file.close()
        return self._event(last)

    def _new_bytes(self) -> bytes:
        if self._file is None:
            try:
                self._file = self._path.open("rb", buffering=0)
            except FileNotFoundError:
                return b""
        waiting = os.fstat(self._file.fileno()).st_size - self._file.tell()
        if waiting > SKIP_BYTES:
            self._file.seek(-LIMIT_BYTES, os.SEEK_END)
            self._skipped += waiting - LIMIT_BYTES
        return self._file.read()

    def _event(self, text: bytes) -> str:
        if not text:
            return ""
        if self._skipped:
            note = f"… {self._skipped} bytes omitted here, see {self._path}\n"
            text, self._skipped = note.encode() + text, 0
        said = Log(text=text.decode("utf-8", "replace"))
        return Event.now(said, self._run_id, self._generation, self._rank).to_json() + "\n"
