"""Kernels of an app: each belongs to the viewer whose visit started it, and knows nothing of the hub."""

from __future__ import annotations

import uuid
from typing import Any

from jupyter_server import CallContext
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import HTTPError
from traitlets import Integer

from cnai_hub.apps.environment import without_hub


class ViewerKernels(AsyncMappingKernelManager):
    """Kernel manager that remembers whose kernel is whose and keeps their number within bounds."""

    most_kernels = Integer(24, config=True, help="Kernels of all viewers together")
    most_per_viewer = Integer(4, config=True, help="Kernels of one viewer; a further visit ends the oldest")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._viewers: dict[str, str] = {}

    def viewer_of(self, kernel_id: str) -> str | None:
        """Return who may use a kernel; None if there is no such kernel."""
        return self._viewers.get(kernel_id)

    # `_async_start_kernel` is an alias of it upstream, and what it calls on its own superclass.
    async def start_kernel(self, **kwargs: Any) -> str:
        """Start a kernel for the viewer whose request is being handled."""
        viewer = CallContext.get(CallContext.JUPYTER_HANDLER).current_user.username
        await self._make_room(viewer)
        kernel_id = str(uuid.uuid4())
        # Before the first await, so that nobody can know the id earlier than we know its viewer.
        self._viewers[kernel_id] = viewer
        # CNAI_APP: what the notebook shows of a run has no buttons, since viewers may not stop what the author runs.
        kwargs["env"] = {**without_hub(kwargs.get("env") or {}), "CNAI_APP": "1"}
        try:
            return await super().start_kernel(**kwargs, kernel_id=kernel_id)
        except BaseException:
            self._viewers.pop(kernel_id, None)
            raise

    def remove_kernel(self, kernel_id: str) -> Any:
        """Forget a kernel that has ended."""
        self._viewers.pop(kernel_id, None)
        return super().remove_kernel(kernel_id)

    async def _make_room(self, viewer: str) -> None:
        own = [kernel for kernel, owner in self._viewers.items() if owner == viewer]
        full = len(self._viewers) >= self.most_kernels
        if full and not own:
            raise HTTPError(503, "as many people as this app can hold are using it; try again in a few minutes")
        if own and (full or len(own) >= self.most_per_viewer) and own[0] in self:
            await self.shutdown_kernel(own[0])
