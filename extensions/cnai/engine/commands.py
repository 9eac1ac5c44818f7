"""Commands: the requests that people may make of a run, by its state. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cnai.events import State

if TYPE_CHECKING:
    from cnai.engine.records import Status

Verb = Literal["stop", "pause", "resume", "scale"]

_GOING_ON: frozenset[Verb] = frozenset({"stop", "pause", "scale"})
ASKABLE: dict[State, frozenset[Verb]] = {
    State.PENDING: _GOING_ON,
    State.RUNNING: _GOING_ON,
    State.RESIZING: _GOING_ON,
    State.RESTARTING: _GOING_ON,
    State.PAUSED: frozenset({"stop", "resume", "scale"}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Wish:
    """A person's request about a run."""

    verb: Verb
    ranks: int | None = None
    """The new world size; required for `scale`, optional for `resume`."""


def refusal(wish: Wish, run_id: str, status: Status, *, has_engine: bool = True) -> str | None:
    """Return why a wish can't be granted, None if it can.

    Without an engine, wishes that need the run's ranks are refused.
    """
    state = status.state
    if wish.verb not in ASKABLE[state]:
        return f"run {run_id} is {_state_refusal(wish.verb, state)}"
    if not has_engine and wish.verb in {"pause", "scale"} and state is not State.PAUSED:
        return (
            f"can't {wish.verb} run {run_id} now, its engine has not started yet: the run is {state};"
            " wait until it is RUNNING, or stop it"
        )
    if wish.verb in {"pause", "scale"} or wish.ranks is not None:
        return _unless_resumable(wish, run_id, status.max_ranks)
    return None


def _state_refusal(verb: Verb, state: State) -> str:
    if state.final:
        return f"{state} already; nothing to {verb}"
    return f"{state}, not PAUSED; there is nothing to resume" if verb == "resume" else f"{state} already"


def _unless_resumable(wish: Wish, run_id: str, max_ranks: int | None) -> str | None:
    if wish.verb != "pause" and (wish.ranks is None or wish.ranks < 1):
        return f"ranks must be 1 or more; given: {wish.ranks}"
    if max_ranks is None:
        return (
            f"can't {wish.verb} run {run_id}: its code has not reached ctx.steps(); code without "
            "cnai.context() can't resume, it can only be stopped"
        )
    if wish.ranks is not None and wish.ranks > max_ranks:
        return f"this run splits each step into {max_ranks} shards; ranks may be 1 to {max_ranks}"
    return None
