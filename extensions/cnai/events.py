"""Events: the facts about a run, one JSON object per line, on their way from the ranks to all followers."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, ClassVar, Self


class State(StrEnum):
    """States of a run; final states never change."""

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
        """Tell whether the state is final."""
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
    """Kinds of events; each kind has one class of payload."""

    STATE = "state"
    GENERATION = "generation"
    METRIC = "metric"
    LOG = "log"
    CHECKPOINT = "checkpoint"
    DIAGNOSIS = "diagnosis"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """Base of payloads; the fields are keys in JSON, except fields that are None or False."""

    kind: ClassVar[Kind]

    def to_dict(self) -> dict[str, Any]:
        """Return the payload as a JSON object."""
        said = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in said.items() if value is not None and value is not False}

    @classmethod
    def of(cls, event: Event) -> Self:
        """Read an event's payload; ignores unknown keys of other versions."""
        known = {one.name for one in fields(cls)}
        return cls(**{key: value for key, value in event.payload.items() if key in known})


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange(Payload):
    """The run has a new state, or a new reason for its current state."""

    kind = Kind.STATE
    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewGeneration(Payload):
    """A generation is about to start its ranks."""

    kind = Kind.GENERATION
    ranks: int
    from_step: int
    """Step of the checkpoint from which it starts, 0 if there is none."""


@dataclass(frozen=True, slots=True)
class Metrics(Payload):
    """Numbers of one step; the payload is the numbers themselves, by name."""

    kind = Kind.METRIC
    values: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the payload as a JSON object."""
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
    """Name of the exception's class, if an exception ended a rank."""
    traceback: str | None = None
    """The user's own lines."""
    at: float | None = None
    """When the exception was raised, in seconds since 1970 (UTC) by the rank's clock."""
    final: bool = False
    """The run failed because of this."""
    log_tail: str | None = None
    """The last lines that the rank printed, if there is no traceback."""
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
    def now(cls, fact: Payload, run_id: str, generation: int, rank: int | None = None, step: int | None = None) -> Self:
        """Return an event with the current time."""
        return cls(
            run_id=run_id,
            generation=generation,
            kind=fact.kind,
            time=time.time(),
            rank=rank,
            step=step,
            payload=fact.to_dict(),
        )

    def to_json(self) -> str:
        """Return the event as one line without its newline."""
        return json.dumps(asdict(self), separators=(",", ":"), allow_nan=True)

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Read a line that `to_json` wrote."""
        fact = json.loads(line)
        return cls(**{**fact, "kind": Kind(fact["kind"])})
