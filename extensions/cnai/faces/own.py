"""Own code: kept out of what people read about theirs."""

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
    """Return a traceback from the author's first frame on; all of it if there is none."""
    part = traceback
    while part is not None and is_own(part.tb_frame.f_code.co_filename):
        part = part.tb_next
    return part or traceback


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show what cnai warns of in one line, without the place in its code; others' warnings stay as they are."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], filename: str, *more: Any, **named: Any) -> None:
            if is_own(filename):
                sys.stderr.write(f"warning: {message}\n")
            else:
                others(message, category, filename, *more, **named)

        warnings.showwarning = show
        yield
