"""Messages between authors and the hub's apps service, as records.

Hub and notebook server may be of different versions, so keys may be added here, but none may change or go.

An author asks (`Request`) and is told what to send (`Accepted`); their notebook is tried in a program of its own, which
tells facts (`AtCell`, `CellFailed`, `RanThrough`); then the bundle is sent, and the service tells facts (`Progress`,
`Published`, `Refusal`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cnai.records import Record, parsed

AppState = Literal["running", "starting", "stopping", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Record):
    """A request to publish; `python` and `packages` are those of the trial, so they are empty before it."""

    slug: str
    name: str
    title: str = ""
    share: tuple[str, ...] = ()
    flavor: str = ""
    image: str = ""
    reference: str = ""
    python: str = ""
    packages: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted(Record):
    """The service's answer to a request that it would take, before the trial.

    `current` is the release that would be replaced, `runs` tells whether the runs that the notebook shows come along.
    """

    current: int | None
    runs: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AppModel(Record):
    """An app, for everybody who may open it; times in seconds since 1970 (UTC)."""

    slug: str
    title: str
    author: str
    mine: bool
    created: float
    published: float
    version: int
    share: tuple[str, ...]
    state: AppState
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AppList(Record):
    """All apps that somebody may open."""

    apps: tuple[AppModel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Record):
    """The publication goes on."""

    progress: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Published(Record):
    """The publication has ended well."""

    app: AppModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal(Record):
    """The request was refused; `usage` tells whether the request itself is at fault."""

    error: str
    usage: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AtCell(Record):
    """The trial has begun to run a cell, counted from 1."""

    cell: int
    cells: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFailed(Record):
    """The trial has ended at a cell; `line` is 0 and `source` empty if no line of it is to blame."""

    cell: int
    line: int
    source: str
    error: str
    tail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RanThrough(Record):
    """The trial has ended well, with these versions."""

    python: str
    packages: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal(Record):
    """The access of a terminal on the hub's machine (`hub/client.json`), for its owner; `repr` hides the token."""

    hub_url: str
    token: str = field(repr=False)


def publication(line: str | bytes) -> Progress | Published | Refusal:
    """Read a fact about a publication; each kind has a key of its own."""
    fact = parsed(line)
    keys = fact if isinstance(fact, dict) else ()
    return Refusal.of(fact) if "error" in keys else Published.of(fact) if "app" in keys else Progress.of(fact)


def trial(line: str | bytes) -> AtCell | CellFailed | RanThrough:
    """Read a fact about a trial; each kind has a key of its own."""
    fact = parsed(line)
    keys = fact if isinstance(fact, dict) else ()
    return CellFailed.of(fact) if "error" in keys else RanThrough.of(fact) if "packages" in keys else AtCell.of(fact)
