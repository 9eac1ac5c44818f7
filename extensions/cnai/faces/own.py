"""Own code: keeps cnai's own code out of users' tracebacks and warnings."""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_FOLDER = f"{Path(__file__).resolve().parents[1]}/"


def is_own(filename: str) -> bool:
    """Tell whether a file belongs to cnai."""
    return filename.startswith(_FOLDER)


def authors_part(traceback: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the first frame outside cnai on; the whole traceback if there is no such frame."""
    part = traceback
    while part is not None and is_own(part.tb_frame.f_code.co_filename):
        part = part.tb_next
    return part or traceback


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show cnai's warnings in one line, without their location in the code; other warnings stay unchanged."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], filename: str, *more: Any, **named: Any) -> None:
            if is_own(filename):
                sys.stderr.write(f"warning: {message}\n")
            else:
                others(message, category, filename, *more, **named)

        warnings.showwarning = show
        yield
