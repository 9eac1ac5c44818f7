"""Pages of the apps service for browsers: the apps that a user may open, with buttons. The hub logs the user in."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jupyterhub.services.auth import HubOAuthenticated, UserNotAllowed
from tornado.web import HTTPError, RequestHandler

from cnai import environment
from cnai.errors import HubError
from cnai_hub.models import Named
from cnai_hub.roles import APPS

if TYPE_CHECKING:
    import jinja2

    from cnai.appwire import AppState
    from cnai_hub.apps.releases import App
    from cnai_hub.apps.service.publisher import Publisher

# The page loads nothing from other sites, and an app's title can't run as a script.
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


_NOBODY = {"user": "", "author": False, "apps": [], "xsrf": "", "opening": "", "problem": ""}


def server_path(app: App) -> str:
    """Return the path of a running app's server, below the hub's address."""
    return f"user/{quote(app.owner, safe='@~')}/{app.server_name}/"


def open_path(app: App) -> str:
    """Return an app's path for people, below the hub's address; it also starts a stopped app.

    The path of the server doesn't start the app, and leads to the author's notebook server if that runs.
    """
    return f"services/{APPS}/open/{_key(app.owner, app.slug)}"


def _base() -> str:
    return os.environ.get("JUPYTERHUB_BASE_URL", "/")


def _key(owner: str, slug: str) -> str:
    return f"{quote(owner, safe='@~')}/{slug}"


class Page(HubOAuthenticated, RequestHandler):
    """Base of the handlers for people: requires a cookie of the hub's login, and an XSRF token for every change."""

    def initialize(self, publisher: Publisher, templates: jinja2.Environment) -> None:
        """Set the objects that all handlers share."""
        self.publisher, self.templates = publisher, templates
        self.nonce = secrets.token_urlsafe(16)

    async def prepare(self) -> None:
        """Admit users whom the hub authorizes, and redirect others to its login."""
        model = await self.hub_auth.get_user(self, sync=False)
        try:
            self.current_user = Named.of(model) if model and self.check_hub_user(model) else None
        except UserNotAllowed:
            raise HTTPError(403, reason="You may not open the apps page") from None
        if self.current_user is None:
            if self.request.method != "GET":
                raise HTTPError(403)
            self.redirect(self.get_login_url())

    def set_default_headers(self) -> None:
        """Forbid browser features that the page doesn't need."""
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Cache-Control", "no-store")

    @property
    def me(self) -> str:
        """Name of the viewer."""
        return str(self.current_user.name)

    def app_or_404(self, owner: str, slug: str) -> App:
        """Return an app that the viewer may open; 404 for others, so that nobody learns whether they exist."""
        app = self.publisher.store.get(owner, slug)
        if app is None or not app.may_open(self.me):
            raise HTTPError(404, reason="There is no such app, or it is not shared with you")
        return app

    def start_problem(self, app: App, why: str) -> str:
        """Return the message about an app that doesn't start; only its author sees the reason."""
        return f"The app did not start: {why}." if app.owner == self.me else "The app did not start. Ask its author."

    def show(self, **names: Any) -> None:
        """Send the page."""
        self.set_header("Content-Security-Policy", _POLICY.format(nonce=self.nonce))
        known = {"base_url": f"{_base()}hub/", "apps_url": self.settings["prefix"], "nonce": self.nonce}
        self.finish(self.templates.get_template("apps.html").render(_NOBODY | known | names))

    def write_error(self, status_code: int, **_: Any) -> None:  # noqa: ARG002 - tornado's signature
        """Send one sentence."""
        self.show(problem=f"{self._reason}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An app on the page; only its author sees `share`."""

    key: str
    title: str
    author: str
    date: str
    day: str
    version: int
    state: AppState
    mine: bool
    share: tuple[str, ...]


class Index(Page):
    """The list of apps."""

    async def get(self, owner: str = "", slug: str = "") -> None:
        """Show the apps that the viewer may open; with owner and slug, open that app at once."""
        if slug:
            app = self.app_or_404(owner, slug)
            if await self.publisher.state_of(app) == "running":
                query = self.request.query  # parameters for the notebook
                self.redirect(_base() + server_path(app) + (f"?{query}" if query else ""))
                return
        apps = [app for app in self.publisher.store.apps() if app.may_open(self.me)]
        rows = [await self._row(app) for app in apps]
        self.show(
            apps=rows,
            user=self.me,
            author=environment.APPS_CREATORS.get() in await self.publisher.groups_of(self.me),
            xsrf=self.xsrf_token.decode(),
            opening=_key(owner, slug) if slug else "",
        )

    async def _row(self, app: App) -> Row:
        published = datetime.fromtimestamp(app.published, UTC)
        return Row(
            key=_key(app.owner, app.slug),
            title=app.title,
            author=app.owner,
            date=published.isoformat(timespec="seconds"),
            day=f"{published:%d %B %Y}".lstrip("0"),
            version=app.current,
            state=await self.publisher.state_of(app),
            mine=app.owner == self.me,
            share=app.share if app.owner == self.me else (),
        )


class State(Page):
    """The state of an app's server, for the page's script."""

    async def get(self, owner: str, slug: str) -> None:
        """Send the state and the address of the app."""
        app = self.app_or_404(owner, slug)
        state = await self.publisher.state_of(app)
        problem = self.start_problem(app, await self.publisher.why_stopped(app)) if state == "stopped" else ""
        self.finish({"state": state, "url": _base() + server_path(app), "problem": problem})


class Open(Page):
    """The open button: starts a stopped app."""

    async def post(self, owner: str, slug: str) -> None:
        """Request the start of the app, without waiting; send the reason if the hub refuses."""
        app = self.app_or_404(owner, slug)
        try:
            await self.publisher.open(app)
        except HubError as error:
            self.finish({"problem": self.start_problem(app, str(error))})
        else:
            self.set_status(202)


class Unpublish(Page):
    """The unpublish button, for authors."""

    async def post(self, owner: str, slug: str) -> None:
        """Unpublish an app of the viewer."""
        app = self.app_or_404(owner, slug)
        if app.owner != self.me:
            raise HTTPError(403, reason="Only the author of an app may unpublish it")
        await self.publisher.unpublish(owner, slug)
        self.set_status(204)
