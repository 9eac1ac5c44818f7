"""Client: connects a process to one engine. Requests travel down as RPCs, events travel up over a Dask topic."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any, TypedDict

from cnai import programs
from cnai.engine.messages import plain
from cnai.engine.records import EngineStatus
from cnai.errors import EngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    import distributed

    from cnai.engine.commands import Wish


CONNECT_SECONDS = 10
DOWN = "cnai"
"""Dask topic from the supervisor to all clients."""


class Batch(TypedDict):
    """Whole lines of a run's journal."""

    run: str
    at: int
    """Byte position of the lines in the journal."""
    text: str


def _dask_client(address: str, security: distributed.Security | None) -> distributed.Client:
    from distributed import Client

    class QuietClient(Client):
        """Closes when its scheduler is lost: the next one has another address, and lines look for it.

        Dask's client would try to reconnect for 10 s and fill the cell that runs at the time with its errors.
        """

        async def _reconnect(self) -> None:
            self.scheduler_comm = None
            await self._close()

    return QuietClient(address, security=security, timeout=CONNECT_SECONDS, set_as_default=False)


class EngineClient:
    """Client of a Dask scheduler with our supervisor. Thread-safe; calls listeners on Dask's own thread."""

    def __init__(self, address: str, security: distributed.Security | None = None) -> None:
        self.address = address
        self._listeners: dict[str, list[Callable[[int, str], None]]] = {}
        self._lock = threading.Lock()
        try:
            _knock(address)
            self._dask = _dask_client(address, security)
        except (OSError, ValueError) as error:
            raise EngineError(
                f"no Dask scheduler answers at {address} ({error}); check the address, or use --backend local"
            ) from None
        self._dask.subscribe_topic(DOWN, self._heard)

    @property
    def alive(self) -> bool:
        """Tell whether the scheduler is still connected."""
        return bool(self._dask.status == "running")

    def submit(self, run_id: str, root: str) -> None:
        """Begin a run that is in the store."""
        self._call("cnai_submit", run_id=run_id, root=root)

    def wish(self, run_id: str, wish: Wish, *, only_ask: bool = False) -> None:
        """Ask for stop, pause, resume or scale; raises UsageError with the supervisor's reason if it refuses.

        With `only_ask` it checks the wish without granting it.
        """
        answer = self._call("cnai_wish", run_id=run_id, wish=plain(wish), only_ask=only_ask)
        if "refused" in answer:
            raise UsageError(answer["refused"])

    def status(self) -> EngineStatus:
        """Return the engine's nodes and active runs."""
        return EngineStatus.of(self._call("cnai_status"))

    def listen(self, run_id: str, listener: Callable[[int, str], None]) -> Callable[[], None]:
        """Call `listener(position, lines)` for each batch of a run's journal; returns the function that ends this."""
        with self._lock:
            self._listeners.setdefault(run_id, []).append(listener)

        def forget() -> None:
            with self._lock:
                listeners = self._listeners.get(run_id, [])
                if listener in listeners:
                    listeners.remove(listener)
                if not listeners:
                    self._listeners.pop(run_id, None)

        return forget

    def close(self) -> None:
        """Disconnect; the runs continue."""
        self._dask.close()

    def _heard(self, stamped: tuple[float, Batch]) -> None:
        _, message = stamped
        with self._lock:
            listeners = list(self._listeners.get(message["run"], ()))
        for listener in listeners:
            listener(message["at"], message["text"])

    def _call(self, operation: str, **arguments: Any) -> Any:
        try:
            answer = self._dask.sync(getattr(self._dask.scheduler, operation), **arguments)
        except (OSError, TimeoutError) as error:
            raise EngineError(
                f"the engine at {self.address} does not answer ({error}); %cnai attach starts it again"
            ) from None
        if not isinstance(answer, dict):
            raise EngineError(
                f"{self.address} is a Dask scheduler without cnai; "
                f"start it with --preload {programs.SUPERVISOR_PRELOAD}"
            )
        return answer


def _knock(address: str) -> None:
    """Raise OSError immediately if the port is closed; Dask would retry until its timeout."""
    host, _, port = address.partition("://")[2].rpartition(":")
    socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
