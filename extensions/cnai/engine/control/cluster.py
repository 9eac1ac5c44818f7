"""Cluster: the interface of drivers and generations to their nodes; `workers` implements it with Dask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnai.engine.messages import Dump, End, Order, Report
    from cnai.engine.records import NodeStatus
    from cnai.engine.scribe import Sink


class NodeLost(Exception):
    """The node was lost or does not answer."""


class Agent(Protocol):
    """One node's share of a generation, from the moment of its order."""

    @property
    def done(self) -> bool:
        """Tell whether its report has arrived."""

    async def report(self) -> Report:
        """Wait for its end and return its report; a lost node has a report, too."""

    async def cancel(self) -> None:
        """Cancel an agent that has not started; its report says so."""


class Node(Protocol):
    """One node, even after it is lost."""

    @property
    def address(self) -> str:
        """Return its address, as `tls://host:port`."""

    @property
    def host(self) -> str:
        """Return the host at which other nodes reach it."""

    @property
    def name(self) -> str:
        """Return the name that its backend gave it."""

    @property
    def there(self) -> bool:
        """Tell whether it is still connected to the cluster."""

    @property
    def open(self) -> bool:
        """Tell whether it accepts ranks; a closing node doesn't."""

    @property
    def load(self) -> int:
        """Return how many agents run or wait on it."""

    async def free_port(self) -> int:
        """Return a port for a rendezvous. Raises NodeLost."""

    async def start(self, order: Order) -> Agent:
        """Start an agent, which waits on the node until there is room."""

    async def tell(self, message: End | Dump) -> None:
        """Send it a message about a generation. Raises NodeLost."""

    async def about(self) -> NodeStatus:
        """Return its facts. Raises NodeLost."""


class Nodes(Protocol):
    """All nodes of one scheduler."""

    @property
    def address(self) -> str:
        """Return the scheduler's address."""

    def nodes(self) -> Sequence[Node]:
        """Return the connected nodes."""

    async def close(self) -> None:
        """Disconnect."""


class Cluster(Protocol):
    """The surroundings of an engine's runs: its nodes and its state."""

    @property
    def engine(self) -> str:
        """Return the engine's name, "" if its backend has no names."""

    @property
    def resting(self) -> str:
        """Return why no more generations may start, "" while they may."""

    @property
    def sinks(self) -> Sequence[Sink]:
        """Return the receivers of everything that is written to journals."""

    def nodes(self, *, without_ranks: bool = False) -> Sequence[Node]:
        """Return the nodes that may get ranks; optionally only nodes that no generation uses."""
