"""Events: what happened in a run, one JSON fact per line, from the ranks up to everybody who watches."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, ClassVar, Self


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
    """What an event tells; each kind has one class of payload."""

    STATE = "state"
    GENERATION = "generation"
    METRIC = "metric"
    LOG = "log"
    CHECKPOINT = "checkpoint"
    DIAGNOSIS = "diagnosis"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What an event of one kind says; its fields are the keys in JSON, without those that say nothing."""

    kind: ClassVar[Kind]

    def to_dict(self) -> dict[str, Any]:
        """Return the payload as JSON has it."""
        said = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in said.items() if value is not None and value is not False}

    @classmethod
    def of(cls, event: Event) -> Self:
        """Read an event's payload; keys of other versions are passed over."""
        known = {one.name for one in fields(cls)}
        return cls(**{key: value for key, value in event.payload.items() if key in known})


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange(Payload):
    """The run has a new state, or another reason for the one that it has."""

    kind = Kind.STATE
    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewGeneration(Payload):
    """A generation is about to start its ranks."""

    kind = Kind.GENERATION
    ranks: int
    from_step: int
    """Step of the checkpoint that it starts from, 0 without one."""


@dataclass(frozen=True, slots=True)
class Metrics(Payload):
    """Numbers of one step; the payload is the numbers themselves, by name."""

    kind = Kind.METRIC
    values: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the payload as JSON has it."""
        return dict(self.values)

    @classmethod
    def of(cls, event: Event) -> Self:
        """Read an event's payload."""
        return cls(event.payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Log(Payload):
    """Lines that a rank printed."""

    kind = Kind.LOG
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint(Payload):
    """A checkpoint is complete."""

    kind = Kind.CHECKPOINT
    path: str
    """Relative to the run's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis(Payload):
    """Something went wrong: in a rank, with the engine, or with the run as a whole."""

    kind = Kind.DIAGNOSIS
    summary: str
    """One line."""
    error: str | None = None
    """Name of the exception's class, if a rank ended by one."""
    traceback: str | None = None
    """The user's own lines."""
    at: float | None = None
    """When the exception was raised, in seconds since 1970 (UTC) by the rank's clock."""
    final: bool = False
    """The run failed because of this."""
    log_tail: str | None = None
    """The last lines that the rank printed, where there is no traceback."""
    hint: str | None = None
    """Cause and fix, if the pattern is known."""


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

    @classmethod
    def now(cls, said: Payload, run_id: str, generation: int, rank: int | None = None, step: int | None = None) -> Self:
        """Return the event of something that happens at this moment."""
        return cls(
            run_id=run_id,
            generation=generation,
            kind=said.kind,
            time=time.time(),
            rank=rank,
            step=step,
            payload=said.to_dict(),
        )

    def to_json(self) -> str:
        """Return the event as one line without its newline."""
        return json.dumps(asdict(self), separators=(",", ":"), allow_nan=True)

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Read a line that `to_json` wrote."""
        fact = json.loads(line)
        return cls(**{**fact, "kind": Kind(fact["kind"])})
