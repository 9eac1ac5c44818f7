"""Control: functions that act on a run, given as "latest", its id, the start of its id, or its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnai.run.search import find

if TYPE_CHECKING:
    from cnai.run.handle import Run


def logs(run: str = "latest", rank: int | None = None, tail: int | None = None) -> str:
    """Return the output of a run's ranks, oldest first: of all ranks or one, all lines or the last `tail` lines."""
    return find(run).logs(rank=rank, tail=tail)


def stop(run: str = "latest") -> Run:
    """Request the immediate end of a run; its checkpoints stay. Returns the run."""
    found = find(run)
    found.stop()
    return found


def pause(run: str = "latest") -> Run:
    """Request a checkpoint at the next step and the end of the ranks; `resume` continues there. Returns the run."""
    found = find(run)
    found.pause()
    return found


def resume(run: str = "latest") -> Run:
    """Request that a paused run continues from its last checkpoint. Returns the run."""
    found = find(run)
    found.resume()
    return found


def scale(ranks: int, run: str = "latest") -> Run:
    """Request a different number of ranks; step, global batch and sample order stay. Returns the run."""
    found = find(run)
    found.scale(ranks)
    return found
