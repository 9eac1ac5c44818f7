"""The apps service's JSON API, for `%cnai publish` and other clients; it accepts tokens, but no cookies.

GET    api/apps             {"apps": [...]}, the apps that the token's user may open
POST   api/check            check a request before the trial run; {"current": …, "runs": …}, or an error
POST   api/apps             publish a bundle; answers with lines of JSON: {"progress": text}…, then {"app": …} or
                            {"error": text}
DELETE api/apps/<slug>      unpublish
GET    api/releases/<slug>  the current release as a bundle, only for the server of this app
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from jupyterhub.services.auth import HubAuthenticated, UserNotAllowed
from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler, stream_request_body

from cnai import environment
from cnai.appwire import AppList, AppModel, Progress, Published, Refusal
from cnai.errors import CnaiError, UnknownName, UsageError
from cnai.records import Record
from cnai_hub.apps import bundle, snapshot
from cnai_hub.apps.service.pages import open_path
from cnai_hub.roles import TERMINAL

if TYPE_CHECKING:
    from jupyterhub.services.auth import HubAuth

    from cnai_hub.apps.releases import App
    from cnai_hub.apps.service.publisher import Publisher
    from cnai_hub.apps.snapshot import Snapshot

_BEAT_SECONDS = 3.0
_MOST_UPLOADS = 4
_CHUNK_BYTES = 2**20

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller(Record):
    """The user or service that a token belongs to, and its scopes."""

    name: str
    kind: str
    scopes: tuple[str, ...] = ()


class Api(HubAuthenticated, RequestHandler):
    """Base of the handlers for programs."""

    def initialize(self, publisher: Publisher, token_auth: HubAuth) -> None:
        """Set the objects that all handlers share."""
        self.publisher, self.hub_auth = publisher, token_auth

    def check_xsrf_cookie(self) -> None:
        """Do nothing: requests with a token can't be forged by a cookie."""

    async def prepare(self) -> None:
        """Admit requests with a token that may call this service."""
        model = await self.hub_auth.get_user(self, sync=False)
        try:
            self.current_user = Caller.of(model) if model and self.check_hub_user(model) else None
        except UserNotAllowed:
            self.current_user = None
        if self.current_user is None:
            raise HTTPError(403, "this request needs a token that may call the apps service")

    async def me(self) -> str:
        """Return the user for whom the token's owner acts."""
        if self.current_user.kind == "user":
            return str(self.current_user.name)
        if self.current_user.name == TERMINAL and (owner := environment.APPS_TERMINAL_OWNER.get()):
            return owner
        raise HTTPError(403, f"service {self.current_user.name} may not publish")

    async def author(self) -> str:
        """Return the user for whom the token's owner acts; HTTPError if that user may not publish."""
        me, creators = await self.me(), environment.APPS_CREATORS.get()
        if creators not in (await self.publisher.groups_of(me)):
            raise HTTPError(403, f"{me} may open apps but not publish them; only members of the group {creators!r} may")
        return me

    async def model(self, app: App) -> AppModel:
        """Return the description of an app for clients."""
        return AppModel(
            slug=app.slug,
            title=app.title,
            author=app.owner,
            mine=app.owner == await self.me(),
            created=app.created,
            published=app.published,
            version=app.current,
            share=app.share,
            state=await self.publisher.state_of(app),
            url=environment.HUB_URL.get() + open_path(app),
        )

    def write_error(self, status_code: int, **about: Any) -> None:  # noqa: ARG002 - tornado's signature
        """Send the reason as JSON."""
        error = about.get("exc_info", (None, None))[1]
        text = error.log_message if isinstance(error, HTTPError) and error.log_message else self._reason
        if isinstance(error, CnaiError):
            self.set_status(404 if isinstance(error, UnknownName) else 400 if isinstance(error, UsageError) else 502)
            text = str(error)
        self.finish({"error": text})


class Check(Api):
    """Handler that checks a request to publish."""

    async def post(self) -> None:
        """Answer which parts the bundle needs, or why the notebook can't be published."""
        author = await self.author()
        wanted = snapshot.wanted(snapshot.request_of(self.request.body))
        self.finish((await self.publisher.check(author, wanted)).plain())


@stream_request_body
class Apps(Api):
    """Handler of all apps. Uploads are written to disk, only from authors, and a few at a time."""

    _uploads = asyncio.Semaphore(_MOST_UPLOADS)

    async def prepare(self) -> None:
        """Admit requests with a token, and accept a bundle only from users who may publish."""
        self._body: IO[bytes] | None = None
        self._refusal: HTTPError | CnaiError | None = None
        try:
            await super().prepare()
            if self.request.method == "POST":
                self._author = await self.author()
                await self._take_bundle()
        except (HTTPError, CnaiError) as refusal:
            # Drain the body before refusing: if the connection closes early, the proxy answers 503.
            self._refusal = refusal

    async def _take_bundle(self) -> None:
        folder = self.publisher.store.incoming()
        await self._uploads.acquire()
        self._body = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed when the request is over
        assert isinstance(self.request.connection, HTTP1Connection)
        self.request.connection.set_max_body_size(snapshot.LONGEST)

    def data_received(self, chunk: bytes) -> None:
        """Write a part of a bundle to disk."""
        if self._body:
            self._body.write(chunk)

    def on_finish(self) -> None:
        """Release the place of this upload."""
        self._done()

    def on_connection_close(self) -> None:
        """Release the place of this upload."""
        self._done()

    def _done(self) -> None:
        if self._body:
            self._body.close()
            self._body = None
            self._uploads.release()

    async def get(self) -> None:
        """List the apps that the token's user may open."""
        if self._refusal:
            raise self._refusal
        me = await self.me()
        apps = [app for app in self.publisher.store.apps() if app.may_open(me)]
        models = [await self.model(app) for app in apps]
        self.finish(AppList(apps=tuple(models)).plain())

    async def post(self) -> None:
        """Publish a notebook."""
        if self._refusal:
            raise self._refusal
        assert self._body is not None
        self._body.seek(0)
        author, wanted = self._author, snapshot.read(self._body)
        self._done()
        self.set_header("Content-Type", "application/x-ndjson")
        facts: asyncio.Queue[Progress | Published | Refusal] = asyncio.Queue()
        work = asyncio.create_task(self._publish(author, wanted, facts))
        fact: Progress | Published | Refusal = Progress(progress="checking")
        try:
            while isinstance(fact, Progress):
                self.write(fact.to_json() + "\n")
                await self.flush()
                with suppress(TimeoutError):  # then repeat the line: silence would look like a dead service
                    fact = await asyncio.wait_for(facts.get(), _BEAT_SECONDS)
            await self.finish(fact.to_json() + "\n")
        except StreamClosedError:
            log.info("%s disconnected while publishing %s", author, wanted.slug)
        finally:
            work.cancel()

    async def _publish(
        self, author: str, wanted: Snapshot, facts: asyncio.Queue[Progress | Published | Refusal]
    ) -> None:
        def tell(text: str) -> None:
            facts.put_nowait(Progress(progress=text))

        try:
            app = await self.publisher.publish(author, wanted, tell)
            facts.put_nowait(Published(app=await self.model(app)))
        except CnaiError as error:
            facts.put_nowait(Refusal(error=str(error), usage=isinstance(error, UsageError)))
        except OSError as error:  # a full disk, most likely
            facts.put_nowait(Refusal(error=f"the new release could not be written, so the old one stays: {error}"))
        except Exception:
            log.exception("publishing %s/%s", author, wanted.slug)
            facts.put_nowait(Refusal(error="the apps service failed; the hub's log says why"))


class OneApp(Api):
    """Handler of one app of the token's user."""

    async def delete(self, slug: str) -> None:
        """Unpublish it."""
        await self.publisher.unpublish(await self.author(), slug)
        self.set_status(204)


class CurrentRelease(Api):
    """Handler that sends a release to an app's server that can't read the hub's disk."""

    def check_hub_user(self, model: object) -> object:
        """Admit any token, because an app server's token may not call services; `get` checks its rights."""
        return model

    async def get(self, slug: str) -> None:
        """Send the current release to the server of this app, which alone has the required token."""
        owner = str(self.current_user.name)
        app = self.publisher.store.get(owner, slug)
        own = f"access:servers!server={owner}/{app.server_name}" if app else ""
        # The token's user is not enough: other servers of the same author have tokens, too.
        if app is None or self.current_user.kind != "user" or own not in self.current_user.scopes:
            raise HTTPError(403, "this request needs the token of the app's own server")
        folder = self.publisher.store.folder(owner, slug)
        self.set_header("Content-Type", "application/x-tar")
        with tempfile.TemporaryFile(dir=self.publisher.store.incoming()) as body:
            await asyncio.to_thread(bundle.pack, body, folder, ["app.json", f"releases/{app.current}"])
            body.seek(0)
            while chunk := body.read(_CHUNK_BYTES):
                self.write(chunk)
                await self.flush()
