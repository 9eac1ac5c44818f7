"""Tracebacks: formats a rank's exception for the author of the code."""

from __future__ import annotations

import itertools
import traceback
from typing import TYPE_CHECKING

from cnai.engine.capture import frozen, sources

if TYPE_CHECKING:
    from pathlib import Path

_LIBRARY_FRAMES = 6
_hidden: set[str] = set()


def hide_folder(folder: Path) -> None:
    """Show this folder's files by their paths inside it, because they are copies of local modules."""
    _hidden.add(f"{folder}/")


def user_traceback(error: BaseException, *, debug: bool) -> str:
    """Return a traceback with the user's own lines and the code they called, without cnai and torch's launcher.

    Shows only both ends of a long chain of library calls; `debug` shows everything.
    """
    exception = traceback.TracebackException.from_exception(error, compact=True)
    if not debug:
        _clean(exception)
    return "".join(exception.format())


def _clean(exception: traceback.TracebackException) -> None:
    exception.stack = traceback.StackSummary.from_list(_shorten(_from_user(list(exception.stack))))
    if isinstance(getattr(exception, "filename", None), str):
        exception.filename = _shown(exception.filename)
    for part in (exception.__cause__, exception.__context__, *(exception.exceptions or ())):
        if part is not None:
            _clean(part)


def _from_user(frames: list[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """Drop cnai's frames, and all frames before the user's first."""
    start = max((number for number, frame in enumerate(frames, 1) if frame.filename == frozen.__file__), default=0)
    frames = [frame for frame in frames[start:] if not sources.is_own(frame.filename)]
    first = next((number for number, frame in enumerate(frames) if not sources.is_library(frame.filename)), 0)
    for frame in frames:
        frame.filename = _shown(frame.filename)
    return frames[first:]


def _shorten(frames: list[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    kept: list[traceback.FrameSummary] = []
    for library, group in itertools.groupby(frames, lambda frame: sources.is_library(frame.filename)):
        run = list(group)
        if library and len(run) > _LIBRARY_FRAMES:
            hidden = run[2:-3]
            middle = traceback.FrameSummary(
                hidden[0].filename, hidden[0].lineno, f"… {len(hidden)} more", lookup_line=False, line=""
            )
            run = [*run[:2], middle, *run[-3:]]
        kept += run
    return kept


def _shown(filename: str) -> str:
    for folder in _hidden:
        filename = filename.removeprefix(folder)
    return filename
