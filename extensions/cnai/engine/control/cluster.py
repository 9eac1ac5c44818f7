"""Cluster: what drivers and generations ask of the place that they run in. Dask is behind it (`workers`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnai.engine.messages import Dump, End, Order, Report
    from cnai.engine.records import NodeStatus
    from cnai.engine.scribe import Sink


class NodeLost(Exception):
    """The node is gone, or does not answer."""


class Agent(Protocol):
    """One node's share of a generation, from the moment it was asked for."""

    @property
    def done(self) -> bool:
        """Tell whether its report is there."""

    async def report(self) -> Report:
        """Wait for its end; a node that was lost has a report too."""

    async def cancel(self) -> None:
        """Give up one that has not begun; its report says so."""


class Node(Protocol):
    """One node, also after it is gone."""

    @property
    def address(self) -> str:
        """Return what it is known by, as `tls://host:port`."""

    @property
    def host(self) -> str:
        """Return where other nodes reach it."""

    @property
    def name(self) -> str:
        """Return what its backend calls it."""

    @property
    def there(self) -> bool:
        """Tell whether it still belongs to the cluster."""

    @property
    def open(self) -> bool:
        """Tell whether it takes ranks; one that closes doesn't."""

    @property
    def load(self) -> int:
        """Return how many agents it has or waits to start."""

    async def free_port(self) -> int:
        """Return a port for a rendezvous. Raises NodeLost."""

    async def start(self, order: Order) -> Agent:
        """Start an agent; if the node has no room it waits there."""

    async def tell(self, message: End | Dump) -> None:
        """Tell it something about a generation. Raises NodeLost."""

    async def about(self) -> NodeStatus:
        """Return its facts. Raises NodeLost."""


class Nodes(Protocol):
    """All nodes of one scheduler."""

    @property
    def address(self) -> str:
        """Return the scheduler's own."""

    def nodes(self) -> Sequence[Node]:
        """Return the nodes that are there."""

    async def close(self) -> None:
        """Hang up."""


class Cluster(Protocol):
    """Where the runs of one engine live."""

    @property
    def engine(self) -> str:
        """Return its name, "" where a backend has no names."""

    @property
    def resting(self) -> str:
        """Return why no generation may begin any more, "" while they may."""

    @property
    def sinks(self) -> Sequence[Sink]:
        """Return everybody who gets what goes into journals."""

    def nodes(self, *, without_ranks: bool = False) -> Sequence[Node]:
        """Return the nodes that may get ranks; all of them, or those that no generation has."""
