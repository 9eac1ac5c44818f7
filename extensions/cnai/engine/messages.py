"""Messages: the records that supervisor, nodes and ranks exchange.

    supervisor ── Order (a Dask task) ────► node ── Order (by fork) ──► agent, ranks
    supervisor ── End, Dump ──────────────► node ── Stop ─────────────► rank
    supervisor ◄── Leaving, FromNode ────── node ◄── FromRank ───────── rank
    supervisor ◄── Report (its result) ──── node ◄── Outcome ────────── agent

Messages between a node and its ranks are pickled; Dask's RPCs and topics carry them as `plain` data.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from cnai.engine.commands import Wish

if TYPE_CHECKING:
    from pathlib import Path

    from cnai.spec import Interval


LastWord = Literal["finished", "ended"]
"""How a rank ended: by itself, with exit code 0, or with its generation."""
Ending = Literal["graceful", "terminate", "kill"]
"""How ranks end: at a step boundary, by SIGTERM, or by SIGKILL."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A rank's place in the run. Paths are absolute and reachable from this node."""

    run_id: str
    generation: int
    run_dir: Path
    resume_from: Path | None
    """Last committed checkpoint, None in a run's first generation or before its first checkpoint."""
    checkpoint_every: Interval
    timeout_seconds: float | None
    """Limit of one collective; None: not given."""
    first_world_size: int
    """World size of generation 0: the default number of shards, which must stay the same across a resize."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """The request to a node to start its share of a generation's ranks."""

    assignment: Assignment
    node_rank: int
    nodes: int
    first_rank: int
    ranks: int
    """Ranks on this node."""
    endpoint: str
    """host:port of the rendezvous on node 0; with a single node the port is 0 and the agent chooses one."""
    cwd: str
    env: dict[str, str] = field(repr=False)  # Dask logs the arguments of a task that fails
    cpu: float | None
    """CPUs for this node's ranks; None: all."""
    gpus: int | None
    """GPUs that the ranks may see; None: all."""
    grace_seconds: float
    """Time from SIGTERM to SIGKILL."""
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
class Outcome:
    """How an agent ended, reported to its node; empty if the agent did its work."""

    failures: tuple[Failure, ...] = ()
    error: str = ""
    """Why the agent itself failed."""

    @property
    def failed(self) -> bool:
        """Tell whether not all of its ranks exited with code 0."""
        return bool(self.failures or self.error)


@dataclass(frozen=True, kw_only=True)
class Report:
    """How one node's share of a generation ended."""

    node_rank: int
    said: dict[int, LastWord] = field(default_factory=dict)
    """By rank."""
    failures: tuple[Failure, ...] = ()
    error: str = ""
    """Why the agent itself failed, "" if it did its work."""


@dataclass(frozen=True, kw_only=True)
class Events:
    """Lines for the run's journal."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """The abilities of a rank or its code from now on; None leaves one unchanged."""

    pid: int | None = None
    graceful: bool | None = None
    """Whether it ends at a step boundary on request."""
    max_ranks: int | None = None
    """How many ranks it can use."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A rank's last message: its target ended with its generation, not by itself."""


@dataclass(frozen=True, kw_only=True)
class FromRank:
    """A message from a rank to its node."""

    rank: int
    content: Events | Abilities | Ended


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Asks a rank to end its generation at the next step boundary."""

    id: int = 0
    """An answer repeats it; 0 if no answer is expected."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """A node is starting its ranks."""

    agent_pid: int


@dataclass(frozen=True, kw_only=True)
class Announced:
    """A rank has announced its abilities."""

    rank: int
    abilities: Abilities


@dataclass(frozen=True, kw_only=True)
class FromNode:
    """A message from a node to the supervisor about its share of a generation."""

    run_id: str
    generation: int
    node_rank: int
    content: Started | Announced | Events


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """A node is about to leave, so its ranks must end."""

    node: str
    """The node's address."""


@dataclass(frozen=True, kw_only=True)
class End:
    """Asks a node to end its share of a generation."""

    run_id: str
    generation: int
    how: Ending


@dataclass(frozen=True, kw_only=True)
class Dump:
    """Asks a node to have each rank write the stacks of its threads into its log."""

    run_id: str
    generation: int


_PLAIN = {each.__name__: each for each in (Events, Abilities, Started, Announced, FromNode, Leaving, End, Dump, Wish)}


def plain(message: Any) -> Any:
    """Return a message as data that survives msgpack unchanged."""
    name = type(message).__name__
    if name not in _PLAIN:
        return message
    return {"message": name, **{one.name: plain(getattr(message, one.name)) for one in fields(message)}}


def message_of(data: Any) -> Any:
    """Return the message from which `plain` made the data."""
    if not isinstance(data, dict) or data.get("message") not in _PLAIN:
        return data
    record = _PLAIN[data["message"]]
    known = {one.name for one in fields(record)}  # Dask adds "worker" to data from a topic
    return record(**{key: message_of(value) for key, value in data.items() if key in known})
