"""Messages between authors and the hub's apps service, as records.

Hub and notebook server may have different versions, so keys may be added here, but never changed or removed.

An author sends a `Request` and receives `Accepted`. A separate program tries the notebook and reports `AtCell`,
`CellFailed` and `RanThrough`. Then the author sends the bundle, and the service reports `Progress`, `Published` or
`Refusal`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cnai.records import Record, parsed

AppState = Literal["running", "starting", "stopping", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup(Record):
    """A run that a notebook looked up in its trial: `asked` is a name, or the hash of code and arguments.

    `shown` tells whether the app needs the run's files.
    """

    kind: Literal["name", "inputs"]
    asked: str
    run: str
    shown: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins(Record):
    """The runs that an app finds: those that its trial found by `names` and `inputs`, otherwise none after `until`.

    `until` is the time of the trial in seconds since 1970 (UTC).
    """

    until: float
    names: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned(Record):
    """The part of a release's record that its kernels read; an older version pinned nothing."""

    pins: Pins | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Record):
    """A request to publish; `python`, `packages` and `pins` are the trial's, empty before it.

    `source` is the notebook's path on its author's machine; `replace` lets it replace another notebook's app.
    `keep_share` leaves the app shared as it is.
    """

    slug: str
    name: str
    title: str = ""
    share: tuple[str, ...] = ()
    keep_share: bool = False
    source: str = ""
    replace: bool = False
    flavor: str = ""
    image: str = ""
    reference: str = ""
    python: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    pins: Pins | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted(Record):
    """The service's answer to an acceptable request, before the trial.

    `current` is the release that would be replaced, `runs` tells whether the bundle must contain the notebook's runs,
    because the app is a pod without its author's home. The trial gets the variables of `environment`, as the app does.
    """

    current: int | None
    runs: bool
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppModel(Record):
    """An app, as people who may open it see it; times in seconds since 1970 (UTC)."""

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
    """All apps that a person may open."""

    apps: tuple[AppModel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Record):
    """The publication has made progress."""

    progress: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Published(Record):
    """The publication has succeeded."""

    app: AppModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal(Record):
    """The request was refused; `usage` tells whether the request itself is at fault."""

    error: str
    usage: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AtCell(Record):
    """The trial has started a cell, counted from 1."""

    cell: int
    cells: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFailed(Record):
    """The trial has failed at a cell; `line` is 0 and `source` empty if no line of the cell is to blame."""

    cell: int
    line: int
    source: str
    error: str
    tail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RanThrough(Record):
    """The trial has succeeded, with these versions."""

    python: str
    packages: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal(Record):
    """The owner's access to the hub from a terminal on its machine (`hub/client.json`); `repr` hides the token.

    `environment` and `umask` are those that the hub gives to apps, None if an older hub wrote the file.
    """

    hub_url: str
    token: str = field(repr=False)
    environment: dict[str, str] | None = field(default=None, repr=False)
    umask: int | None = None


def publication(line: str | bytes) -> Progress | Published | Refusal:
    """Read a message about a publication; each kind has a key that the others lack."""
    fact = parsed(line)
    keys = fact if isinstance(fact, dict) else ()
    return Refusal.of(fact) if "error" in keys else Published.of(fact) if "app" in keys else Progress.of(fact)


def trial(line: str | bytes) -> AtCell | CellFailed | RanThrough:
    """Read a message about a trial; each kind has a key that the others lack."""
    fact = parsed(line)
    keys = fact if isinstance(fact, dict) else ()
    return CellFailed.of(fact) if "error" in keys else RanThrough.of(fact) if "packages" in keys else AtCell.of(fact)
