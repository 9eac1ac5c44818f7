"""Kernels of an app: each belongs to the viewer whose visit started it, and has no access to the hub."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import cached_property
from typing import Any

from jupyter_server import CallContext
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import HTTPError
from traitlets import Integer, Unicode

from cnai import environment
from cnai_hub.apps.conditions import of_kernel
from cnai_hub.apps.server.room import LEFT_SECONDS, MOST_PAGES, Room

_LOOK_SECONDS = 0.1
# Long enough that a viewer who reloads their page gets the place of the page that they have just left.
_PATIENCE_SECONDS = LEFT_SECONDS + 1


class ViewerKernels(AsyncMappingKernelManager):
    """Kernel manager that records the viewer of each kernel and limits the number of kernels."""

    most_pages = Integer(MOST_PAGES, config=True, help="Limit of open pages, and thus kernels, of all viewers together")

    release = Unicode("", config=True, help="File with the record of the release that the kernels serve")

    @cached_property
    def room(self) -> Room:
        """Return the open pages."""
        return Room(self.most_pages)

    # Upstream, `_async_start_kernel` is an alias of this method, and the name that it calls on its own superclass.
    async def start_kernel(self, **kwargs: Any) -> str:
        """Start a kernel for the viewer whose request is being handled."""
        request = CallContext.get(CallContext.JUPYTER_HANDLER)
        viewer = request.current_user.username
        await self._make_room(viewer, request)
        # No await may come between _make_room and here: another page could take the place, or use the id before it has
        # a viewer.
        kernel_id = self.room.enter(viewer, request)
        # CNAI_APP: views of runs have no buttons, because viewers may not stop the author's runs.
        kwargs["env"] = {**of_kernel(kwargs.get("env") or {}), environment.RELEASE.name: self.release}
        try:
            return await super().start_kernel(**kwargs, kernel_id=kernel_id)
        except BaseException:
            self.room.leave(kernel_id)
            raise

    def remove_kernel(self, kernel_id: str) -> Any:
        """Forget a kernel that has ended."""
        self.room.leave(kernel_id)
        return super().remove_kernel(kernel_id)

    def notify_connect(self, kernel_id: str) -> None:
        """Record that a page has opened a websocket."""
        super().notify_connect(kernel_id)
        self.room.connected(kernel_id)

    def notify_disconnect(self, kernel_id: str) -> None:
        """Record that a websocket of a page has closed."""
        super().notify_disconnect(kernel_id)
        self.room.disconnected(kernel_id)

    async def _make_room(self, viewer: str, request: Any) -> None:
        """Wait until there is room for a page; HTTPError with a sentence for its viewer if there is none in time."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while why := self.room.refusal(viewer):
            if left := self.room.longest_left(viewer):
                with suppress(HTTPError):  # the kernel has already ended
                    await self.shutdown_kernel(left)
                self.room.leave(left)
            elif time.monotonic() > deadline or request.is_closed:
                raise HTTPError(503, why, reason="No room for another page")
            else:
                await asyncio.sleep(_LOOK_SECONDS)
