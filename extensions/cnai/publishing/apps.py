"""Apps: publishes notebooks, lists and removes apps.

Works in a notebook server of the hub and, for the workbench's owner, in a terminal on the same machine.
"""

from __future__ import annotations

import dataclasses
import html
import io
import json
import tarfile
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlparse

from cnai import environment
from cnai.appwire import Accepted, AppList, AppModel, Published, Refusal, Request
from cnai.errors import HubError, UnknownName, UsageError
from cnai.publication import APPS, CHECK, checked_slug
from cnai.publishing import conditions, trial
from cnai.publishing import notebook as notebooks
from cnai.publishing import service as appservice
from cnai.publishing.advice import advice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cnai.foreign import Notebook


NOT_PUBLISHED = 0
"""The version of an app that was not published, because the notebook runs as an app, or is being tried."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class App:
    """A published notebook, as its viewers find it. `state` is running, starting, stopping or stopped."""

    slug: str
    title: str
    author: str
    created: datetime
    state: str
    url: str
    version: int
    share: tuple[str, ...] = ()

    def __repr__(self) -> str:
        if self.version == NOT_PUBLISHED:
            return f"{self.title} is not published from here: this notebook runs as an app, or is being tried for one"
        return f"{self.title} ({self.slug}, version {self.version}, {self.state}): {self.url}"

    def _repr_html_(self) -> str:
        if self.version == NOT_PUBLISHED:
            return f"<p><small>{html.escape(repr(self))}</small></p>"
        # Only the path of the address: the browser may reach the hub under another name than this process.
        link, words = urlparse(self.url).path, (self.title, self.author, self.state)
        title, author, state = map(html.escape, words)
        shared = html.escape(", ".join(self.share)) or "nobody"
        return (
            f'<p><a href="{html.escape(link)}" target="_blank" rel="noopener"><b>{title}</b></a><br>'
            f"<small>version {self.version} by {author}, {state}, shared with {shared}</small></p>"
        )


class Apps(list[App]):
    """Apps, one line each."""

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or "no apps"

    def _repr_html_(self) -> str:
        return "".join(app._repr_html_() for app in self) or "<p>no apps</p>"


def publish(
    notebook: str | Path,
    *,
    share: Iterable[str] | None = None,
    private: bool = False,
    title: str | None = None,
    slug: str | None = None,
    replace: bool = False,
    include: Iterable[str | Path] = (),
    flavor: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> App:
    """Publish a notebook as an app, with the local modules it imports and the files or folders of `include`.

    The notebook runs once here before it replaces the app's current release; returns when the app answers. `share` is
    the full list of users and groups: people whom it no longer names lose access; None leaves the app shared as it is,
    and `private` shares it with nobody. A notebook replaces another notebook's app only with `replace`; `slug` gives
    the app another name. `flavor` is the app's, by default the catalog's default. `progress` is called with one line
    per step. In an app, and while a notebook is tried for one, nothing is published.
    """
    path = Path(notebook).expanduser()
    if environment.APP.get():  # otherwise a notebook that publishes itself would do so without end
        return _not_here(path)
    people = (share,) if isinstance(share, str) else tuple(share or ())
    if private and people:
        raise UsageError(f"private shares with nobody; given as well: share {','.join(people)}; give one of them")
    content = notebooks.read(path)
    tell = _once(progress)
    request = Request(
        slug=checked_slug(slug) if slug else notebooks.slug_from(path.stem),
        title=title or notebooks.heading(content) or path.stem,
        name=path.name,
        share=people,
        keep_share=share is None and not private,
        source=str(path.resolve()),
        replace=replace,
        flavor=flavor or "",
        image=environment.IMAGE.get(),
        reference=environment.IMAGE_REFERENCE.get(),
    )
    notebooks.check_kernel(path, content)
    files = {**_files(path, content, include, tell), path.name: json.dumps(notebooks.bare(content)).encode()}
    tell("checking")
    accepted = appservice.read(Accepted, appservice.ask("POST", CHECK, request))
    for name in notebooks.files_of(Path.home(), content) if accepted.runs else ():
        tell(f"{name} is in your home, which the app doesn't have; include it and name it from the notebook's folder")
    outcome = _try(files, path, accepted, tell)
    runs = trial.results(outcome.runs) if accepted.runs else {}
    with tempfile.TemporaryFile() as body:
        tried = dataclasses.replace(request, python=outcome.python, packages=outcome.packages, pins=outcome.pins)
        _pack(body, tried, files, runs)
        return _app(_send(body, tell))


def _not_here(path: Path) -> App:
    """Return the result of publishing in an app or in its trial: an app that was not published."""
    return App(
        slug=notebooks.slug_from(path.stem),
        title=path.stem,
        author="",
        created=datetime.now(UTC),
        state="stopped",
        url="",
        version=NOT_PUBLISHED,
    )


def _once(progress: Callable[[str], None] | None) -> Callable[[str], None]:
    """Return a function that reports each line once, even if it is repeated."""
    last = [""]

    def tell(text: str) -> None:
        if progress and text != last[0]:
            last[0] = text
            progress(text)

    return tell


def _try(files: dict[str, bytes], path: Path, accepted: Accepted, tell: Callable[[str], None]) -> trial.Outcome:
    deadline = environment.TRIAL_SECONDS.get()
    tell("running the notebook once")
    under = conditions.of_app(accepted)
    try:
        return trial.rehearse(files, path.name, under, deadline_seconds=deadline, progress=tell)
    except trial.TrialFailed as error:
        kept = f"release {accepted.current} stays" if accepted.current else "nothing was published"
        hint = advice(error.failed, path.resolve().parent, files) if error.failed else ""
        raise HubError("\n".join(filter(None, (str(error), hint, kept)))) from None


def _pack(body: IO[bytes], request: Request, files: dict[str, bytes], runs: dict[str, bytes]) -> None:
    """Write the bundle: first the request, then the notebook's files, then the runs that it shows."""
    members = {"request.json": request.to_json().encode()}
    members |= {f"files/{name}": content for name, content in files.items()}
    members |= {f"runs/{name}": content for name, content in runs.items()}
    with tarfile.open(fileobj=body, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    body.seek(0)


def _send(body: IO[bytes], tell: Callable[[str], None]) -> AppModel:
    for fact in appservice.send(APPS, body):
        if isinstance(fact, Refusal):
            raise (UsageError if fact.usage else HubError)(fact.error)
        if isinstance(fact, Published):
            return fact.app
        tell(fact.progress)
    raise HubError("the hub ended the connection before the app was published; look at %cnai apps, then try again")


def unpublish(app: str) -> None:
    """Remove an app, given by its slug, with all its releases; the notebook stays."""
    if environment.APP.get():
        raise UsageError(f"{app} is not removed from here: this notebook runs as an app, or is being tried for one")
    reply = appservice.ask("DELETE", f"{APPS}/{checked_slug(app)}")
    if reply.status_code == 404:
        raise UnknownName("app", app, [model.slug for model in _models() if model.mine])
    appservice.fine(reply)


def apps() -> Apps:
    """Return all apps that I may open, last published first."""
    return Apps(_app(model) for model in _models())


def _files(
    path: Path, content: Notebook, include: Iterable[str | Path], tell: Callable[[str], None]
) -> dict[str, bytes]:
    from cnai.publishing.localfiles import included, modules

    folder = path.resolve().parent
    names = [include] if isinstance(include, str | Path) else include
    found = included(folder, names, modules(folder, content), tell=tell)
    return {file.relative_to(folder).as_posix(): _content(file) for file in sorted(found)}


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}; make it readable or move it away") from None


def _models() -> tuple[AppModel, ...]:
    return appservice.read(AppList, appservice.ask("GET", APPS)).apps


def _app(model: AppModel) -> App:
    return App(
        slug=model.slug,
        title=model.title,
        author=model.author,
        created=datetime.fromtimestamp(model.published, UTC),
        state=model.state,
        url=model.url,
        version=model.version,
        share=model.share,
    )
