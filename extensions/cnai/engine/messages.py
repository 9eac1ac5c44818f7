"""Messages: the records that supervisor, nodes and ranks exchange."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cnai.spec import Interval


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What a rank is told about its place in the run. Paths are absolute and reachable from this node."""

    run_id: str
    generation: int
    run_dir: Path
    resume_from: Path | None
    """Last committed checkpoint, None in a run's first generation or before its first checkpoint."""
    checkpoint_every: Interval
    timeout_seconds: float
    first_world_size: int
    """World size of generation 0: default number of shards, so that it stays the same across a resize."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What one node is asked to start: its share of a generation's ranks."""

    assignment: Assignment
    node_rank: int
    nodes: int
    first_rank: int
    ranks: int
    """Ranks on this node."""
    endpoint: str
    """host:port of the rendezvous on node 0; port 0 on a single node: the agent picks one."""
    cwd: str
    env: dict[str, str]
    cpu: float | None
    """CPUs for this node's ranks; None: all."""
    gpus: int | None
    """GPUs that the ranks may see; None: all."""
    debug: bool


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How a rank's process ended, as its agent saw it.

    A negative exit code is a signal; time in seconds since 1970 (UTC).
    """

    rank: int
    exit_code: int
    time: float

    @property
    def signal_name(self) -> str:
        """Return SIGKILL or the like, "" if no signal ended it."""
        return signal.Signals(-self.exit_code).name if self.exit_code < 0 else ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """How one node's share of a generation came to its end."""

    node_rank: int
    said: dict[int, str] = field(default_factory=dict)
    """By rank: "finished" or "ended"."""
    failures: tuple[Failure, ...] = ()
    error: str = ""
    """Why the agent itself ended, "" if it did its work."""
