"""Recovery of server starts that a hub did not live to finish: the next hub finishes them.

JupyterHub itself looks for such a server at the address that the start would have returned, doesn't find it, and
removes the server.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from jupyterhub.spawner import SpawnException
from kubespawner import KubeSpawner

if TYPE_CHECKING:
    from cnai.foreign import Manifest

_LOOK_SECONDS = 0.2


class Recovery(KubeSpawner):
    """A spawner that finishes a start of an earlier hub, once, when JupyterHub polls its server."""

    _recovering = False

    def _pod(self) -> Manifest | None:
        raise NotImplementedError

    async def _watch(self) -> str:
        """Raise as soon as the pod can no longer start."""
        raise NotImplementedError

    async def poll(self) -> int | None:
        """Return None while the server runs or starts, even if an earlier hub started it."""
        status: int | None = await super().poll()
        if self._check_pending:
            # A server that starts while no hub is running exits and is restarted, so it needs longer to answer.
            self.set_trait("http_timeout", self.start_timeout)
        if not self._was_starting:
            return status
        self._recovering = True
        try:
            return await (self._adopt() if status is None else self._begin_again())
        except SpawnException as error:
            self.log.error("%s, whose start an earlier hub began, can't start: %s", self._log_name, error)
            return 1
        finally:
            self._recovering = False

    async def get_url(self) -> str:
        """Return the server's address; use the pod's if an earlier hub started the server."""
        pod = self._pod()
        if self._is_nowhere and pod:
            address: str = self._get_pod_url(pod)
            return address
        known: str = await super().get_url()
        return known

    @property
    def _was_starting(self) -> bool:
        # JupyterHub has this check pending only while it starts up.
        return bool(self._check_pending and self._is_nowhere and not self._recovering)

    @property
    def _is_nowhere(self) -> bool:
        """Tell whether the server has no address: JupyterHub stores the address when a start has finished."""
        return self.server is not None and not self.server.ip

    async def _adopt(self) -> None:
        """Wait for a pod that an earlier hub created."""
        self.log.info("%s was starting when the hub ended; waiting for its pod", self._log_name)
        await self._run_apply_user_options(self.orm_spawner.user_options or {})
        watch = asyncio.ensure_future(self._watch())
        try:
            while not ((self._pod() or {}).get("status") or {}).get("podIP"):
                if watch.done():
                    await watch
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _begin_again(self) -> int | None:
        """Start the requested server with new tokens: only the earlier hub knew those of its own start."""
        self.log.info("%s was about to start when the hub ended; starting it", self._log_name)
        forgotten = self.orm_spawner.server
        await self.user.spawn(self.name)
        self.user.db.delete(forgotten)
        self.user.db.commit()
        return None
