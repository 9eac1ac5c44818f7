"""Link: a rank's line to its node. Events travel up in batches of 50 ms, the request to end the generation down."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from cnai.engine.messages import Abilities, Ended, Events, FromRank, Stop
from cnai.events import Diagnosis, Event, Kind

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from cnai.engine.messages import Assignment
    from cnai.events import Payload


BATCH_SECONDS = 0.05
MAX_WAITING_METRICS = 20_000

_current: Link | None = None


class GenerationEnd(BaseException):
    """Unwinds the target at a step boundary, after its last checkpoint.

    Not an Exception, so that `except Exception` in user code doesn't catch it.
    """


class Link:
    """Sends a rank's events and receives the request to end the generation.

    `emit` never blocks: beyond 20,000 waiting metrics it drops the oldest, and the next batch says how many; it never
    drops other events. Thread-safe.
    """

    def __init__(self, assignment: Assignment, rank: int, connection: Connection) -> None:
        self.assignment, self.rank = assignment, rank
        self.stopping = threading.Event()
        self._connection = connection
        self._facts: deque[Event] = deque()
        self._metrics: deque[Event] = deque()
        self._dropped = 0
        self._lock, self._line = threading.Lock(), threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._sender = threading.Thread(target=self._send_forever, name="cnai-link-send", daemon=True)
        self._sender.start()
        threading.Thread(target=self._hear, name="cnai-link-hear", daemon=True).start()

    def emit(self, said: Payload, step: int | None = None) -> None:
        """Queue one event."""
        event = Event.now(said, self.assignment.run_id, self.assignment.generation, self.rank, step)
        with self._lock:
            if event.kind is not Kind.METRIC:
                self._facts.append(event)
                return
            self._metrics.append(event)
            if len(self._metrics) > MAX_WAITING_METRICS:
                self._metrics.popleft()
                self._dropped += 1

    def announce(self, abilities: Abilities) -> None:
        """Tell the node the abilities of this rank or its code."""
        self._post(abilities)

    def end(self) -> None:
        """Tell the node that the target ended with its generation."""
        self._post(Ended())

    def _post(self, content: Events | Abilities | Ended) -> None:
        with self._line:
            try:
                self._connection.send(FromRank(rank=self.rank, content=content))
            except OSError:  # the node was lost; the watchdog ends this rank
                self._closed = True

    def close(self) -> None:
        """Send the waiting events and stop; returns when they are in the pipe to the node."""
        self._closed = True
        self._wake.set()
        self._sender.join(timeout=10)

    def _send_forever(self) -> None:
        while not self._closed:
            self._wake.wait(BATCH_SECONDS)
            self.flush()
        self.flush()

    def flush(self) -> None:
        """Send the waiting events now."""
        with self._lock:
            batch = sorted([*self._facts, *self._metrics], key=lambda event: event.time)
            self._facts.clear()
            self._metrics.clear()
            dropped, self._dropped = self._dropped, 0
        if dropped:
            self.emit(Diagnosis(summary=f"{dropped} reports dropped: reported faster than they could be sent"))
        if not batch:
            return
        self._post(Events(text="".join(event.to_json() + "\n" for event in batch)))

    def _hear(self) -> None:
        try:
            while True:
                if isinstance(self._connection.recv(), Stop):
                    self.stopping.set()
        except (EOFError, OSError):
            return


def install(link: Link | None) -> None:
    """Set the link of this process."""
    global _current
    _current = link


def current() -> Link | None:
    """Return the link of this process, None outside a run."""
    return _current
