"""The publisher turns uploaded notebooks into running apps, and removes apps."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from cnai.appwire import Accepted, AppState
from cnai.errors import CnaiError, HubError, UnknownName, UsageError
from cnai_hub.apps.releases import App, Release, Store, read_release

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnai_hub.apps.service.hub import Hub
    from cnai_hub.apps.service.terms import Terms
    from cnai_hub.apps.snapshot import Snapshot, Wanted

log = logging.getLogger(__name__)

Progress = Callable[[str], None]


class Publisher:
    """Publishes and unpublishes apps. Changes of one app are serialized; if one fails, the current release stays."""

    def __init__(self, store: Store, hub: Hub, terms: Terms) -> None:
        self.store, self._hub, self._terms = store, hub, terms
        self._locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def check(self, owner: str, wanted: Wanted) -> Accepted:
        """Check a request before the trial run and the upload; return which parts the upload needs."""
        await self._people(wanted.share)
        groups = await self.groups_of(owner)
        self._terms.check(wanted, groups)
        app = self._published(owner, wanted.slug)
        if app and not wanted.replace:
            self._check_source(app, wanted)
        return Accepted(
            current=app.current if app else None,
            runs=self._terms.in_pods,
            environment=self._terms.environment(wanted, groups),
        )

    async def publish(self, owner: str, snapshot: Snapshot, progress: Progress) -> App:
        """Make an uploaded notebook the app's current release, share the app, and restart its server."""
        async with self._locks[owner, snapshot.slug]:
            await self.check(owner, snapshot)
            old = self._published(owner, snapshot.slug)
            if old and snapshot.keep_share:
                snapshot = replace(snapshot, share=old.share)
            # A person of the old list may have left the hub since.
            viewers = await self._people(snapshot.share, missing_is_fine=snapshot.keep_share) - {owner}
            app = await self._release(owner, snapshot, viewers)
            if old and (lost := [name for name in old.share if name not in snapshot.share]):
                progress(f"no longer shared with {', '.join(lost)}")
            progress("starting the app's server")
            await self._hub.share(owner, app.server_name, viewers)
            await self._hub.stop(owner, app.server_name)
            await self._hub.start(owner, app.server_name, app.title)
            await self._hub.wait_ready(owner, app.server_name, progress)
            return app

    async def unpublish(self, owner: str, slug: str) -> None:
        """Remove an app: shares, server, all releases."""
        async with self._locks[owner, slug]:
            app = self.store.get(owner, slug)
            if app is None:
                raise UnknownName("app", slug, [app.slug for app in self.store.apps() if app.owner == owner])
            await self._hub.stop(owner, app.server_name, remove=True)
            self.store.remove(owner, slug)

    async def open(self, app: App) -> None:
        """Request the start of an app's server unless it is running."""
        await self._hub.start(app.owner, app.server_name, app.title)

    async def state_of(self, app: App) -> AppState:
        """Return the state of an app's server."""
        return await self._hub.state_of(app.owner, app.server_name)

    async def why_stopped(self, app: App) -> str:
        """Return why the last start of an app's server failed."""
        return await self._hub.why_failed(app.owner, app.server_name)

    async def groups_of(self, user: str) -> set[str]:
        """Return a user's groups."""
        return await self._hub.groups_of(user) or set()

    async def follow_groups(self) -> None:
        """Renew the shares of all apps: members of groups change, and the hub may have lost its shares."""
        for app in self.store.apps():
            try:
                async with self._locks[app.owner, app.slug]:
                    if current := self.store.get(app.owner, app.slug):
                        await self._follow(current)
            except CnaiError as error:
                log.warning("shares of %s/%s: %s", app.owner, app.slug, error)

    async def _follow(self, app: App) -> None:
        viewers = await self._people(app.share, missing_is_fine=True) - {app.owner}
        await self._hub.create(app.owner, app.server_name, app.title)
        await self._hub.share(app.owner, app.server_name, viewers)
        if viewers != set(app.viewers):
            self.store.write(replace(app, viewers=tuple(sorted(viewers))))

    async def _release(self, owner: str, snapshot: Snapshot, viewers: Iterable[str]) -> App:
        with self.store.staging(owner, snapshot.slug) as stage:
            app, release = self._records(owner, snapshot, sorted(viewers))
            snapshot.write(stage)
            await self._hub.create(owner, app.server_name, app.title)
            self.store.commit(stage, app, release)
            return app

    def _published(self, owner: str, slug: str) -> App | None:
        """Return the published app of this name; a damaged record counts as none, so that publishing repairs it."""
        try:
            return self.store.get(owner, slug)
        except HubError as error:
            log.warning("%s", error)
            return None

    def _check_source(self, app: App, wanted: Wanted) -> None:
        """Raise UsageError if another notebook was published under the wanted name."""
        before, given = app.source, wanted.source
        if not (before and given):  # an older version published the app, or publishes now: compare the file names
            before, given = self._notebook_of(app) or wanted.name, wanted.name
        if before != given:
            raise UsageError(
                f"app {app.slug!r} was published from {before}; given: {given}; "
                "add --slug NAME to publish another app, or --replace to replace that one"
            )

    def _notebook_of(self, app: App) -> str:
        with suppress(HubError):  # publishing repairs a damaged release
            if release := read_release(self.store.folder(app.owner, app.slug), app.current):
                return release.notebook
        return ""

    def _records(self, owner: str, snapshot: Snapshot, viewers: list[str]) -> tuple[App, Release]:
        now, number = time.time(), self.store.next_number(owner, snapshot.slug)
        old = self._published(owner, snapshot.slug)
        app = App(
            owner=owner,
            slug=snapshot.slug,
            title=snapshot.title,
            created=old.created if old else now,
            published=now,
            current=number,
            share=snapshot.share,
            viewers=tuple(viewers),
            source=snapshot.source,
        )
        release = Release(
            number=number,
            notebook=snapshot.name,
            author=owner,
            created=now,
            files=tuple(sorted([*snapshot.files, snapshot.name])),
            python=snapshot.python,
            packages=snapshot.packages,
            image=snapshot.image,
            reference=snapshot.reference,
            flavor=snapshot.flavor,
            runs=snapshot.run_names,
            pins=snapshot.pins,
        )
        return app, release

    async def _people(self, names: Iterable[str], *, missing_is_fine: bool = False) -> set[str]:
        """Resolve names of users and groups to users.

        Groups are expanded because the hub doesn't admit users through a share with their group.
        """
        people: set[str] = set()
        for name in names:
            if await self._hub.groups_of(name) is not None:
                people.add(name)
            elif (members := await self._hub.members_of(name)) is not None:
                people |= members
            elif not missing_is_fine:
                raise UsageError(
                    f"no user or group is named {name!r}; share with groups, or with the names that people log in with"
                )
        return people


async def forever(publisher: Publisher, every_seconds: float) -> None:
    """Renew the shares at a regular interval, forever."""
    while True:
        await publisher.follow_groups()
        await asyncio.sleep(every_seconds)
