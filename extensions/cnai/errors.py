"""Errors of cnai, one tree.

CnaiError
├── UsageError           a request that can't be executed as given (nothing was started)
│   ├── UnknownName      no verb, flavor, image, run or app has this name
│   └── CaptureError     the target uses something that can't travel to a rank
├── EngineError          the scheduler or a node did not start, or was lost
├── StoreError           a run could not be written to or read from disk
├── RunFailed            a rank raised, died or stalled; carries the first failing rank's own traceback
├── RunCancelled         the run was stopped before it had a result
├── ResultError          the target returned something that can't travel back
└── HubError             the hub is missing, or refused

Each message says what was given, what is allowed and what to do. Notebooks show it as one line, without our
traceback.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class CnaiError(Exception):
    """Base of every error that cnai raises on purpose."""

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows instead of a traceback."""
        return str(self).splitlines() or [type(self).__name__]


class UsageError(CnaiError, ValueError):
    """A request can't be executed as given."""


class UnknownName(UsageError):
    """No such verb, flavor, image, run or app."""

    def __init__(self, what: str, given: str, allowed: Iterable[str], remedy: str = "") -> None:
        names = sorted(allowed)
        close = difflib.get_close_matches(given, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        listing = f"allowed: {', '.join(names)}" if names else "there are none yet"
        super().__init__(f"unknown {what} {given!r}{hint} ({listing}){'; ' + remedy if remedy else ''}")


class CaptureError(UsageError):
    """The target uses something that can't travel to a rank."""


class EngineError(CnaiError):
    """The scheduler or a node did not start, or was lost."""


class StoreError(CnaiError):
    """A run could not be written to or read from disk."""


class RunFailed(CnaiError):
    """A rank raised, died or stalled.

    `traceback` holds the user's own lines, `log_tail` the rank's last output, `hint` cause and fix of a known pattern.
    """

    def __init__(
        self,
        summary: str,
        *,
        rank: int | None = None,
        traceback: str = "",
        log_tail: str = "",
        hint: str = "",
    ) -> None:
        self.summary, self.rank = summary, rank
        self.traceback, self.log_tail, self.hint = traceback, log_tail, hint
        parts = [traceback.rstrip(), summary]
        if log_tail.strip():
            parts.append("last output:\n" + "\n".join("  " + line for line in log_tail.rstrip().splitlines()))
        if hint:
            parts.append(f"hint: {hint}")
        super().__init__("\n".join(part for part in parts if part))


class RunCancelled(CnaiError):
    """The run was stopped before it had a result."""


class ResultError(CnaiError):
    """The target returned something that can't travel back."""


class HubError(CnaiError):
    """The hub is missing, or refused."""
