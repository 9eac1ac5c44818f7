"""Contact: connects a run to its engine's scheduler once that answers, and forwards its events to all followers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from weakref import WeakSet

from cnai.backends.kubernetes import fleet
from cnai.errors import EngineError
from cnai.events import State

if TYPE_CHECKING:
    from cnai.backends.kubernetes.standing import Standing
    from cnai.backends.line import Listener
    from cnai.engine.control.client import EngineClient
    from cnai.engine.store import RunFolder

logger = logging.getLogger(__name__)


class Contact:
    """This process's connection to the engine of one run."""

    def __init__(self, folder: RunFolder, engine: str) -> None:
        self._folder, self._engine = folder, engine
        self._listeners: WeakSet[Listener] = WeakSet()
        self._client: EngineClient | None = None

    def add(self, listener: Listener) -> None:
        """Forward events to one more listener, until it is garbage-collected."""
        self._listeners.add(listener)

    def alive(self) -> EngineClient | None:
        """Return the client of the scheduler, None if there is none or its connection was lost."""
        return self._client if self._client is not None and self._client.alive else None

    def reach(self, standing: Standing) -> EngineClient | None:
        """Connect to the scheduler if it answers, and let it begin a PENDING run; return the client.

        A DNS name that is resolved before it exists stays unknown for seconds, so this waits until the pod runs.
        """
        self._client = None
        if not standing.scheduler:
            return None
        try:
            client = fleet.connect(self._engine)
            client.listen(self._folder.run_id, self._hear)
            if self._folder.status().state is State.PENDING:
                client.submit(self._folder.run_id, str(self._folder.path.parent))
        except EngineError as absent:
            logger.debug("%s: %s", self._engine, absent)
            return None
        self._client = client
        self.read()
        return client

    def read(self) -> None:
        """Let all listeners read the journal's new lines."""
        for listener in list(self._listeners):
            listener.read()

    def _hear(self, position: int, text: str) -> None:
        for listener in list(self._listeners):
            listener.hear(position, text)
