"""Publisher: from a snapshot to a running app, and back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cnai.errors import CnaiError, HubError, UnknownName, UsageError
from cnai_hub.apps import trial
from cnai_hub.apps.releases import App, Release, Store

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnai_hub.apps.hub import Hub
    from cnai_hub.apps.snapshot import Snapshot

log = logging.getLogger(__name__)

Progress = Callable[[str], None]


class Publisher:
    """Changes what is published. Changes of one app wait for each other; a failed one leaves its current release."""

    def __init__(self, store: Store, hub: Hub, *, deadline_seconds: float = trial.DEADLINE_SECONDS) -> None:
        self.store, self._hub, self._deadline_seconds = store, hub, deadline_seconds
        self._locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def publish(self, owner: str, snapshot: Snapshot, progress: Progress) -> App:
        """Try a notebook, make it the app's current release, share it and start its server."""
        async with self._locks[owner, snapshot.slug]:
            viewers = await self._people(snapshot.share) - {owner}
            app = await self._release(owner, snapshot, viewers, progress)
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

    async def state_of(self, app: App) -> str:
        """Return what an app's server does."""
        return await self._hub.state_of(app.owner, app.server_name)

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

    async def _release(self, owner: str, snapshot: Snapshot, viewers: Iterable[str], progress: Progress) -> App:
        with self.store.staging(owner, snapshot.slug) as stage:
            snapshot.write(stage / "files")
            progress("running the notebook once")
            outcome = await self._try(owner, snapshot, stage, progress)
            app, release = self._records(owner, snapshot, sorted(viewers), outcome)
            await self._hub.create(owner, app.server_name, app.title)
            self.store.commit(stage, app, release)
            return app

    async def _try(self, owner: str, snapshot: Snapshot, stage: Any, progress: Progress) -> trial.Outcome:
        try:
            return await trial.rehearse(
                stage / "files", snapshot.name, deadline_seconds=self._deadline_seconds, progress=progress
            )
        except trial.TrialFailed as error:
            old = self.store.get(owner, snapshot.slug)
            kept = f"release {old.current} stays" if old else "nothing was published"
            raise HubError(f"{error}\n{kept}") from None

    def _records(
        self, owner: str, snapshot: Snapshot, viewers: list[str], outcome: trial.Outcome
    ) -> tuple[App, Release]:
        now, number = time.time(), self.store.next_number(owner, snapshot.slug)
        old = self.store.get(owner, snapshot.slug)
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
            python=outcome.python,
            packages=outcome.packages,
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
                    f"nobody here is named {name!r}, and no group; share with names that people log in with"
                )
        return people


async def forever(publisher: Publisher, every_seconds: float) -> None:
    """Follow groups from time to time."""
    while True:
        await publisher.follow_groups()
        await asyncio.sleep(every_seconds)
