"""Releases: frozen versions of published notebooks, on disk.

    apps/<owner>/<slug>/app.json                   the app: title, dates, number of the current release, viewers
    apps/<owner>/<slug>/releases/<n>/release.json  the contents of release n: notebook, files, Python, packages
    apps/<owner>/<slug>/releases/<n>/files/        the published files, read-only
    apps/<owner>/<slug>/releases/<n>/runs/         runs whose results the app shows, if it can't reach the author's runs

A release is written to a new folder; replacing `app.json` by a rename makes it current. A failure before the rename
leaves the old release current.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import quote, unquote

from cnai.appwire import Pins  # noqa: TC001 - records read their types
from cnai.errors import HubError
from cnai.paths import private, remove_tree
from cnai.publication import SERVER_PREFIX, valid_slug
from cnai.records import Record
from cnai.tables import Mistake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

_Read = TypeVar("_Read", bound=Record)

KEPT_RELEASES = 4


def slug_of(server_name: str) -> str | None:
    """Return the slug of the app that a server's name denotes, None if it's not an app's name."""
    slug = server_name.removeprefix(SERVER_PREFIX)
    return slug if server_name.startswith(SERVER_PREFIX) and valid_slug(slug) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(Record):
    """One frozen version of a published notebook; `kind` is the only kind of app so far.

    `files` lists the paths of all published files, `packages` the versions of the trial run. `image` and `flavor` are
    names in the catalog, and Kubernetes pulls `reference`. `runs` are the names of the included runs, `pins` the runs
    that the notebook finds; an older version pinned none.
    """

    number: int
    notebook: str
    author: str
    created: float
    kind: Literal["notebook"] = "notebook"
    files: tuple[str, ...] = ()
    python: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    image: str = ""
    reference: str = ""
    flavor: str = ""
    runs: tuple[str, ...] = ()
    pins: Pins | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class App(Record):
    """A published notebook; `share` has the names that the author gave, `viewers` the users they last resolved to.

    `source` is the notebook's path on its author's machine, "" if an older version published it.
    """

    owner: str
    slug: str
    title: str
    created: float
    published: float
    current: int
    share: tuple[str, ...] = ()
    viewers: tuple[str, ...] = ()
    source: str = ""

    @property
    def server_name(self) -> str:
        """Name of the server that serves this app."""
        return SERVER_PREFIX + self.slug

    def may_open(self, user: str) -> bool:
        """Tell whether this user may open the app."""
        return user == self.owner or user in self.viewers


class Store:
    """All apps under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, owner: str, slug: str) -> Path:
        """Return an app's folder, whether it exists or not."""
        return self.root / quote(owner, safe="@").replace(".", "%2E") / slug

    def incoming(self) -> Path:
        """Return the folder for temporary files of uploads and downloads; create it if necessary."""
        return private(self.root)

    def get(self, owner: str, slug: str) -> App | None:
        """Return an app, None if it is not published."""
        return read_app(self.folder(owner, slug)) if valid_slug(slug) else None

    def has(self, owner: str, slug: str) -> bool:
        """Tell whether an app of that name is published, even if its record is damaged."""
        return valid_slug(slug) and (self.folder(owner, slug) / "app.json").exists()

    def apps(self) -> list[App]:
        """Return all apps, the latest published first; leave out damaged ones, so that the others remain usable."""
        found = [_whole(file.parent) for file in self.root.glob("*/*/app.json")]
        return sorted((app for app in found if app), key=lambda app: app.published, reverse=True)

    @contextmanager
    def staging(self, owner: str, slug: str) -> Iterator[Path]:
        """Yield an empty folder for a new release; delete it at the end unless it was committed."""
        self.incoming()
        releases = private(self.folder(owner, slug) / "releases")
        for left_over in releases.glob(".new-*"):  # of a publisher that was killed
            remove_tree(left_over)
        stage = releases / f".new-{os.getpid()}-{time.monotonic_ns()}"
        stage.mkdir(mode=0o700)
        try:
            yield stage
        finally:
            remove_tree(stage)
            if not (releases.parent / "app.json").exists():
                remove_tree(releases.parent)

    def commit(self, stage: Path, app: App, release: Release) -> None:
        """Make a staged release the current one; `app.current` and `release.number` are its number."""
        folder = self.folder(app.owner, app.slug)
        (stage / "release.json").write_text(release.to_json(indent=1))
        freeze(stage)
        stage.rename(folder / "releases" / str(release.number))
        self.write(app)
        numbers = sorted(release_numbers(folder))
        for number in numbers[:-KEPT_RELEASES]:
            remove_tree(folder / "releases" / str(number))

    def write(self, app: App) -> None:
        """Replace an app's record."""
        folder = self.folder(app.owner, app.slug)
        part = folder / ".app.json.part"
        part.write_text(app.to_json(indent=1))
        part.replace(folder / "app.json")

    def next_number(self, owner: str, slug: str) -> int:
        """Return the number of the next release."""
        return max(release_numbers(self.folder(owner, slug)), default=0) + 1

    def remove(self, owner: str, slug: str) -> None:
        """Delete an app with all its releases."""
        folder = self.folder(owner, slug)
        (folder / "app.json").unlink(missing_ok=True)  # first, so that a partly deleted app is not served
        remove_tree(folder)


def read_app(folder: Path) -> App | None:
    """Read an app's record, None if there is none."""
    return _read(App, folder / "app.json")


def release_record(folder: Path, number: int) -> Path:
    """Return the file with the record of one release of the app in `folder`."""
    return folder / "releases" / str(number) / "release.json"


def read_release(folder: Path, number: int) -> Release | None:
    """Read the record of one release of the app in `folder`, None if there is none."""
    return _read(Release, release_record(folder, number))


def owner_of(folder: Path) -> str:
    """Return the owner of the app in `folder`."""
    return unquote(folder.parent.name)


def release_numbers(folder: Path) -> list[int]:
    """Return the numbers of all releases of the app in `folder`."""
    return [int(path.name) for path in (folder / "releases").glob("*") if path.name.isdigit()]


def _whole(folder: Path) -> App | None:
    try:
        return read_app(folder)
    except HubError as error:
        log.warning("%s", error)
        return None


def _read(record: type[_Read], file: Path) -> _Read | None:
    try:
        return record.from_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Mistake as mistake:
        raise HubError(f"{file} is damaged: {mistake}; publish the notebook again") from None


def freeze(folder: Path) -> None:
    """Make a folder's contents read-only."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.chmod(0o500 if path.is_dir() else 0o400)
