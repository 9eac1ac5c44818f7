"""What becomes of a start that its hub did not live to see: the next hub finishes it, so that what was accepted comes.

JupyterHub itself looks for such a server where the start would have said that it is, finds nothing, and removes it.
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
    """A spawner that goes on with what an earlier hub began, once, when JupyterHub asks whether its server runs."""

    _recovering = False

    def _pod(self) -> Manifest | None:
        raise NotImplementedError

    async def _watch(self) -> str:
        """Raise as soon as the pod can't start any more."""
        raise NotImplementedError

    async def poll(self) -> int | None:
        """Return None while the server runs or starts, also if an earlier hub started it."""
        status: int | None = await super().poll()
        if self._check_pending:
            # A server that begins while there is no hub gives up, and is begun anew, before it answers.
            self.set_trait("http_timeout", self.start_timeout)
        if not self._was_starting:
            return status
        self._recovering = True
        try:
            return await (self._adopt() if status is None else self._begin_again())
        except SpawnException as error:
            self.log.error("%s, which an earlier hub began to start, can't: %s", self._log_name, error)
            return 1
        finally:
            self._recovering = False

    async def get_url(self) -> str:
        """Return where the server is; one that an earlier hub started is where its pod is."""
        pod = self._pod()
        if self._is_nowhere and pod:
            address: str = self._get_pod_url(pod)
            return address
        known: str = await super().get_url()
        return known

    @property
    def _was_starting(self) -> bool:
        # At no other time has JupyterHub this check pending.
        return bool(self._check_pending and self._is_nowhere and not self._recovering)

    @property
    def _is_nowhere(self) -> bool:
        """Tell whether there is a server without an address: JupyterHub writes that down when a start has ended."""
        return self.server is not None and not self.server.ip

    async def _adopt(self) -> None:
        """Wait for a pod that an earlier hub made."""
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
        """Start what was asked for, with new tokens: those of the earlier start were known to that hub only."""
        self.log.info("%s was about to start when the hub ended; starting it", self._log_name)
        forgotten = self.orm_spawner.server
        await self.user.spawn(self.name)
        self.user.db.delete(forgotten)
        self.user.db.commit()
        return None
