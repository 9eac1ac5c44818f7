"""Models: the parts of JupyterHub's REST API responses that we read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from cnai.errors import HubError
from cnai.records import Record
from cnai.tables import Mistake

if TYPE_CHECKING:
    import httpx

_Read = TypeVar("_Read", bound=Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server(Record):
    """A server; `pending` is the action in progress: spawn, stop, or None."""

    pending: str | None = None
    ready: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Record):
    """A user with their groups and, if the token may see them, their servers."""

    groups: tuple[str, ...]
    servers: dict[str, Server] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group(Record):
    """A group with the names of its users."""

    users: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Named(Record):
    """A user or service, by name."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Share(Record):
    """A permission to open a server; `user` is None if a group has the permission."""

    user: Named | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pagination(Record):
    """The position of a page in a list; `next` is None on the last page."""

    next: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares(Record):
    """One page of the shares of a server."""

    items: tuple[Share, ...]
    _pagination: Pagination

    @property
    def is_last(self) -> bool:
        """Tell whether no page follows."""
        return self._pagination.next is None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnProgress(Record):
    """An event that JupyterHub sends to clients that watch a server start."""

    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure(Record):
    """The body of an error response."""

    message: str


def read(kind: type[_Read], text: str | bytes) -> _Read:
    """Read a response of the hub."""
    try:
        return kind.from_json(text)
    except Mistake as mistake:
        raise HubError(f"the hub's answer does not match JupyterHub 6 ({mistake}); update cnai or the hub") from None


def reason(reply: httpx.Response) -> str:
    """Return why the hub or one of its servers refused a request."""
    try:
        return Failure.from_json(reply.content).message
    except Mistake:
        return reply.reason_phrase
