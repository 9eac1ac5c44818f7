"""Control: what people do with a run that they name: by "latest", its id, the beginning of it, or its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnai.run.search import find

if TYPE_CHECKING:
    from cnai.run.handle import Run


def logs(run: str = "latest", rank: int | None = None, tail: int | None = None) -> str:
    """Return what the ranks of a run printed, oldest first: all ranks or one, all of it or the last `tail` lines."""
    return find(run).logs(rank=rank, tail=tail)


def stop(run: str = "latest") -> Run:
    """Ask for the end of a run, now; its checkpoints stay. Returns the run."""
    found = find(run)
    found.stop()
    return found


def pause(run: str = "latest") -> Run:
    """Ask for a checkpoint at the next step and the end of the ranks; `resume` goes on from there. Returns the run."""
    found = find(run)
    found.pause()
    return found


def resume(run: str = "latest") -> Run:
    """Ask a paused run to go on from its last checkpoint. Returns the run."""
    found = find(run)
    found.resume()
    return found


def scale(ranks: int, run: str = "latest") -> Run:
    """Ask for another number of ranks; step, global batch and sample order stay. Returns the run."""
    found = find(run)
    found.scale(ranks)
    return found
