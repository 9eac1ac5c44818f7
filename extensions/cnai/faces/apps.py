"""Apps: publish a notebook, list what was published, take it back.

Works in a notebook server of the hub and, for the workbench's owner, in a terminal on the same machine.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from cnai import paths
from cnai.errors import HubError, UnknownName, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import httpx

_LONGEST_SLUG = 26
_SLUG = re.compile(r"[a-z0-9](-?[a-z0-9])*")
_START = "start it with `make run`, or publish from a notebook server of a hub"


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
        return f"{self.title} ({self.slug}, version {self.version}, {self.state}): {self.url}"

    def _repr_html_(self) -> str:
        # Of the address only the path: a browser may know the hub by another name than this process.
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
    share: Iterable[str] = (),
    title: str | None = None,
    slug: str | None = None,
    include: Iterable[str | Path] = (),
    progress: Callable[[str], None] | None = None,
) -> App:
    """Publish a notebook as an app, with the local modules it imports and the files or folders of `include`.

    It runs once before it replaces the app's current release; returns when the app answers. `share` names users and
    groups, all of them: who is not named any more loses access. `progress` is called with a line for each thing done.
    """
    path = Path(notebook).expanduser()
    content = read_notebook(path)
    request = {
        "slug": _checked(slug) if slug else slug_from(path.stem),
        "title": title or _heading(content) or path.stem,
        "name": path.name,
        "notebook": content,
        "files": {name: base64.b64encode(data).decode() for name, data in _files(path, content, include).items()},
        "share": [share] if isinstance(share, str) else list(share),
    }
    app: dict[str, Any] = {}
    said = ""
    for fact in _lines("POST", "api/apps", request):
        if "error" in fact:
            raise (UsageError if fact.get("usage") else HubError)(fact["error"])
        if progress and (text := fact.get("progress", said)) != said:
            said = text
            progress(text)
        app = fact.get("app", app)
    if not app:
        raise HubError("the hub ended the connection before the app was published; look at %cnai apps, then try again")
    return _app(app)


def unpublish(slug: str) -> None:
    """Take back an app: nobody can open it any more, its releases are deleted. The notebook stays."""
    reply = _ask("DELETE", f"api/apps/{_checked(slug)}")
    if reply.status_code == 404:
        raise UnknownName("app", slug, [model["slug"] for model in _models() if model["mine"]])
    _fine(reply)


def apps() -> Apps:
    """Return all apps that I may open, the latest published first."""
    return Apps(_app(model) for model in _models())


def read_notebook(path: Path) -> dict[str, Any]:
    """Return a notebook's JSON."""
    if not path.exists():
        near = sorted(other.name for other in path.parent.glob("*.ipynb")) if path.parent.is_dir() else []
        raise UsageError(f"{path} does not exist; notebooks in that folder: {', '.join(near) or 'none'}")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content["cells"], content["nbformat"]
    except (ValueError, KeyError, TypeError, OSError):
        raise UsageError(f"{path} is not a notebook; give a file that JupyterLab saved as .ipynb") from None
    return content


def slug_from(name: str) -> str:
    """Return an app's name made from a notebook's: `01 First run!` becomes `01-first-run`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain)[: _LONGEST_SLUG + 1].strip("-")[:_LONGEST_SLUG].strip("-")
    return _checked(slug) if slug else "app"


def _checked(slug: str) -> str:
    if len(slug) > _LONGEST_SLUG or not _SLUG.fullmatch(slug):
        raise UsageError(
            f"{slug!r} can't be an app's name; allowed: lowercase letters, digits and single '-' between them, "
            f"at most {_LONGEST_SLUG} characters"
        )
    return slug


def _heading(content: dict[str, Any]) -> str:
    """Return the notebook's first heading."""
    for cell in content["cells"]:
        text = "".join(cell.get("source", ""))
        if cell.get("cell_type") == "markdown" and (found := re.search(r"^#{1,2}\s+(.+)$", text, re.MULTILINE)):
            return re.sub(r"[*_`]", "", found[1]).strip()
    return ""


def _files(path: Path, content: dict[str, Any], include: Iterable[str | Path]) -> dict[str, bytes]:
    from cnai.faces.localfiles import included, modules

    folder = path.resolve().parent
    names = [include] if isinstance(include, str | Path) else include
    wanted = {*modules(folder, content), *included(folder, names)}
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(wanted)}


def _models() -> list[dict[str, Any]]:
    reply = _ask("GET", "api/apps")
    _fine(reply)
    models: list[dict[str, Any]] = reply.json()["apps"]
    return models


def _app(model: dict[str, Any]) -> App:
    return App(
        slug=model["slug"],
        title=model["title"],
        author=model["author"],
        created=datetime.fromtimestamp(model["published"], UTC),
        state=model["state"],
        url=model["url"],
        version=model["version"],
        share=tuple(model["share"]),
    )


def _hub() -> tuple[str, str]:
    """Return the hub's address and a token: a notebook server's own, else the workbench owner's on this machine."""
    if token := os.environ.get("JUPYTERHUB_API_TOKEN"):
        url = os.environ.get("CNAI_HUB_URL")
        if not url:
            raise HubError("this hub has no apps service; ask whoever runs it to configure cnai_hub.apps")
        return url, token
    try:
        known = json.loads((paths.home() / "hub" / "client.json").read_text())
        return known["hub_url"], known["token"]
    except (OSError, ValueError, KeyError):
        raise HubError(f"there is no hub to publish on; {_START}") from None


def _client() -> httpx.Client:
    import httpx

    url, token = _hub()
    # No proxy from the environment: the hub is on this machine, or on the same cluster. No read timeout for publishing
    # is needed, since the service says something every few seconds.
    return httpx.Client(
        base_url=f"{url}services/apps/", headers={"Authorization": f"token {token}"}, timeout=60, trust_env=False
    )


def _ask(method: str, path: str) -> httpx.Response:
    import httpx

    try:
        with _client() as client:
            return client.request(method, path)
    except httpx.HTTPError as error:
        raise _silent(error) from None


def _lines(method: str, path: str, body: Any) -> Iterator[dict[str, Any]]:
    import httpx

    try:
        with _client() as client, client.stream(method, path, json=body) as reply:
            if reply.is_error:
                reply.read()
                _fine(reply)
            for line in reply.iter_lines():
                yield json.loads(line)
    except httpx.HTTPError as error:
        raise _silent(error) from None


def _silent(error: Exception) -> HubError:
    return HubError(f"the hub at {_hub()[0]} does not answer ({type(error).__name__}); {_START}")


def _fine(reply: httpx.Response) -> None:
    if not reply.is_error:
        return
    try:
        text = str(reply.json()["error"])
    except (ValueError, KeyError, TypeError):
        text = f"the hub refused ({reply.status_code} {reply.reason_phrase})"
    raise (UsageError if reply.status_code == 400 else HubError)(text)
