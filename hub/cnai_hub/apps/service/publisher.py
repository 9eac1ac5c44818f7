"""Publisher: from a snapshot to a running app, and back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from cnai.appwire import Accepted, AppState
from cnai.errors import CnaiError, HubError, UnknownName, UsageError
from cnai_hub.apps.releases import App, Release, Store

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnai_hub.apps.service.hub import Hub
    from cnai_hub.apps.service.terms import Terms
    from cnai_hub.apps.snapshot import Snapshot, Wanted

log = logging.getLogger(__name__)

Progress = Callable[[str], None]


class Publisher:
    """Changes what is published. Changes of one app wait for each other; a failed one leaves its current release."""

    def __init__(self, store: Store, hub: Hub, terms: Terms) -> None:
        self.store, self._hub, self._terms = store, hub, terms
        self._locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def check(self, owner: str, wanted: Wanted) -> Accepted:
        """Refuse what can't be published before anybody waits for it, or tell what has to come along."""
        await self._people(wanted.share)
        self._terms.check(wanted, await self.groups_of(owner))
        app = self._published(owner, wanted.slug)
        return Accepted(current=app.current if app else None, runs=self._terms.in_pods)

    async def publish(self, owner: str, snapshot: Snapshot, progress: Progress) -> App:
        """Make a notebook that its author has tried the app's current release, share it and start its server."""
        async with self._locks[owner, snapshot.slug]:
            await self.check(owner, snapshot)
            viewers = await self._people(snapshot.share) - {owner}
            app = await self._release(owner, snapshot, viewers)
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
        """Begin to start an app's server if it doesn't run."""
        await self._hub.start(app.owner, app.server_name, app.title)

    async def state_of(self, app: App) -> AppState:
        """Return what an app's server does."""
        return await self._hub.state_of(app.owner, app.server_name)

    async def why_stopped(self, app: App) -> str:
        """Return why an app's server did not start when it last should."""
        return await self._hub.why_failed(app.owner, app.server_name)

    async def groups_of(self, user: str) -> set[str]:
        """Return the groups a user is in."""
        return await self._hub.groups_of(user) or set()

    async def follow_groups(self) -> None:
        """Look up again whom each app is shared with: people come and go in groups, and the hub may have forgotten."""
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
        """Return the app that would be replaced; a damaged record counts as none, so that publishing repairs it."""
        try:
            return self.store.get(owner, slug)
        except HubError as error:
            log.warning("%s", error)
            return None

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
        )
        return app, release

    async def _people(self, names: Iterable[str], *, missing_is_fine: bool = False) -> set[str]:
        """Return the users that names of users and groups mean.

        Groups are expanded because the hub doesn't let people in whom a share names through their group only.
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
    """Follow groups from time to time."""
    while True:
        await publisher.follow_groups()
        await asyncio.sleep(every_seconds)
