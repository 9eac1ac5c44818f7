"""Consensus: lets the ranks agree when to stop and save while they train, without waiting for each other.

At a step boundary each rank adds its votes and numbers to one small all_reduce, and reads the sum at a later boundary,
when the sum has usually arrived. So all ranks stop or save after the same step, although each of them receives the
request at a different moment.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist

from cnai.engine.training.metrics import Layout, Ledger, publish_held

if TYPE_CHECKING:
    from cnai.engine.training.metrics import Publish

# Short enough for a live curve and a quick stop; an exchange takes about 0.3 ms of CPU, mostly in gloo's threads.
WINDOW_SECONDS = 0.04
MAX_WINDOW_STEPS = 64
_HEADER = 4  # votes to stop, votes to save, steps of the next window (from rank 0), ranks that hold new names


class Verdict(NamedTuple):
    """The decision that all ranks carry out at this boundary."""

    stop: bool = False
    save: bool = False


class _Sent(NamedTuple):
    """A window that is on its way to the other ranks."""

    work: Any
    """torch's handle of the exchange; the future of its callback swallows errors."""
    published: Any
    sums: torch.Tensor
    layout: Layout
    own: list[float]


class Consensus:
    """Agrees on decisions and computes means over all ranks of a group.

    Calls `publish` in rank 0 only, from any thread, and after a failure in the rank that failed. Without a group (one
    process) every boundary decides immediately.
    """

    def __init__(self, group: dist.ProcessGroup | None, rank: int, publish: Publish) -> None:
        self._group, self._rank = group, rank
        self._publish_own = publish
        self._publish: Publish = publish if rank == 0 else lambda *_: None
        self.ledger = Ledger()
        self._sent: _Sent | None = None
        self._published: Layout | None = None
        self._next = 0
        self._read_at = time.perf_counter()

    def begin(self, step: int) -> None:
        """Start a loop after `step` steps; at the first boundary the ranks learn each other's metric names."""
        self.ledger.open(step, 1)
        self._next, self._sent = step + 1, None
        self._read_at = time.perf_counter()

    def due(self, step: int) -> bool:
        """Tell whether the ranks exchange at this boundary; the answer is the same in all ranks."""
        return step >= self._next

    def exchange(self, step: int, *, stop: bool, save: bool) -> Verdict:
        """Send this rank's votes and return the verdict on the previous ones, which is the same in all ranks."""
        if self._group is None:
            return self._alone(step, stop=stop, save=save)
        header = self._receive()
        if header is None or header[3]:
            self._introduce()
        steps = int(header[2]) if header else 1
        self._send(stop=stop, save=save)
        self.ledger.open(step, steps)
        self._next = step + steps
        return Verdict(bool(header[0]), bool(header[1])) if header else Verdict()

    def finish(self, step: int, *, save: bool = False) -> bool:
        """Publish everything and tell whether any rank wants to save.

        Blocks; all ranks call this after the same step.
        """
        if self._group is None:
            return self._alone(step, stop=False, save=save).save
        before = self._receive()
        self._send(stop=False, save=save)
        last = self._receive()
        assert last is not None
        if last[3]:
            self._introduce()
        self.ledger.open(step, 1)
        return bool(last[1] or (before and before[1]))

    def abandon(self, *, failed: bool = False) -> None:
        """Publish rank 0's own numbers without communication, because the other ranks may have ended.

        A rank that failed publishes its own, also those that it has sent but may never get back.
        """
        publish = self._publish_own if failed else self._publish
        if failed and self._sent is not None and self._sent.layout is not self._published:
            self._sent.layout.publish(self._sent.own, publish)
        layout, numbers = self.ledger.layout, self.ledger.numbers()
        layout.publish(numbers, publish)
        publish_held([self.ledger.held], publish)
        self.ledger.held = {}
        self.ledger.open(layout.base + layout.steps, 1)

    def _alone(self, step: int, *, stop: bool, save: bool) -> Verdict:
        self.ledger.layout.publish(self.ledger.numbers(), self._publish)
        self.ledger.learn(publish_held([self.ledger.held], self._publish))
        self.ledger.held = {}
        self.ledger.open(step, 1)
        self._next = step + 1
        return Verdict(stop, save)

    def _send(self, *, stop: bool, save: bool) -> None:
        layout = self.ledger.layout
        header = [float(stop), float(save), self._window(layout), float(bool(self.ledger.held))]
        own = self.ledger.numbers()
        sums = torch.tensor(header + own, dtype=torch.float64)
        work: Any = dist.all_reduce(sums, group=self._group, async_op=True)
        published: Any = None
        if self._rank == 0 and layout.names:
            # Runs in gloo's thread when the sum arrives, so a slow step's numbers don't wait for the next boundary.
            published = work.get_future().then(lambda done: self._arrived(done, layout, sums))
        self._sent = _Sent(work, published, sums, layout, own)

    def _arrived(self, done: Any, layout: Layout, sums: torch.Tensor) -> None:
        done.wait()  # raises if a rank was lost; the sums are wrong then
        layout.publish(sums.tolist()[_HEADER:], self._publish)
        self._published = layout

    def _receive(self) -> list[float] | None:
        if self._sent is None:
            return None
        self._sent.work.wait()
        if self._sent.published is not None:
            self._sent.published.wait()
        sums, self._sent = self._sent.sums, None
        return sums[:_HEADER].tolist()

    def _window(self, layout: Layout) -> float:
        """Return how many steps fit into a window; only rank 0 decides (others return 0), so its value is the sum."""
        if self._rank != 0:
            return 0.0
        now = time.perf_counter()
        seconds, self._read_at = (now - self._read_at) / layout.steps, now
        # The window grows slowly, so that a few quick steps at the start don't delay a stop when slow steps follow.
        return float(max(1, min(int(WINDOW_SECONDS / seconds), MAX_WINDOW_STEPS, 4 * layout.steps)))

    def _introduce(self) -> None:
        """Exchange new names and their numbers with the other ranks; blocks, but only when a name is first used."""
        helds: list[Any] = [None] * dist.get_world_size(self._group)
        dist.all_gather_object(helds, self.ledger.held, group=self._group)
        self.ledger.learn(publish_held(helds, self._publish))
        self.ledger.held = {}
