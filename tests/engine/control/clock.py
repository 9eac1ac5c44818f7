"""A clock that stands still until everybody waits for it, then jumps to the first moment that somebody waits for."""

import asyncio
import selectors
import time

REAL_SECONDS = 20


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1_000_000.0
        monkeypatch.setattr(time, "time", lambda: self.now)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def run(self, coroutine):
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(_Turning(self))) as runner:
            runner.run(coroutine)


class _Turning(selectors.DefaultSelector):
    def __init__(self, clock):
        super().__init__()
        self._clock = clock

    def select(self, timeout=None):
        ready = super().select(0 if timeout is not None else REAL_SECONDS)
        assert ready or timeout is not None, "everybody waits, and nobody for a moment in time"
        if not ready and timeout > 0:
            self._clock.now += timeout
        return ready
