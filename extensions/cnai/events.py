"""Events: what happened in a run, one JSON fact per line, from the ranks up to everybody who watches."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """States of a run; final ones have no way out."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    RESIZING = "RESIZING"
    RESTARTING = "RESTARTING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def final(self) -> bool:
        """Tell whether nothing can follow."""
        return self in _FINAL


_FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})

TRANSITIONS: dict[State, frozenset[State]] = {
    State.PENDING: frozenset({State.RUNNING, State.PAUSED, State.RESTARTING, State.RESIZING}) | _FINAL,
    State.RUNNING: frozenset({State.PAUSED, State.RESIZING, State.RESTARTING}) | _FINAL,
    State.PAUSED: frozenset({State.RUNNING, State.RESTARTING, State.FAILED, State.CANCELLED}),
    State.RESIZING: frozenset({State.RUNNING, State.PAUSED, State.RESTARTING}) | _FINAL,
    State.RESTARTING: frozenset({State.RUNNING, State.PAUSED, State.RESIZING}) | _FINAL,
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}


class Kind(StrEnum):
    """What an event tells; `payload` has the keys named here."""

    STATE = "state"  # state; reason when there is one
    GENERATION = "generation"  # ranks, nodes, from_step
    METRIC = "metric"  # one number per name
    LOG = "log"  # text: whole lines of a rank's output
    CHECKPOINT = "checkpoint"  # path, relative to the run's folder
    DIAGNOSIS = "diagnosis"  # summary, and for a rank's exception: error, traceback, full_traceback; hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One fact about a run.

    `rank` is None when the fact is about the run, `step` is None when it belongs to no optimizer step, `time` is in
    seconds since 1970 (UTC).
    """

    run_id: str
    generation: int
    kind: Kind
    time: float
    rank: int | None = None
    step: int | None = None
    payload: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the event as one line without its newline."""
        return json.dumps(asdict(self), separators=(",", ":"), allow_nan=True)

    @classmethod
    def from_json(cls, line: str) -> Event:
        """Read a line that `to_json` wrote."""
        fact = json.loads(line)
        return cls(**{**fact, "kind": Kind(fact["kind"])})
