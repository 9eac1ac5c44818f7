"""Run: a handle on one run, the same in the kernel that started it, in another kernel, and after its end."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cnai import backends
from cnai.engine import results
from cnai.engine.commands import Wish, refusal
from cnai.engine.records import Status
from cnai.errors import ResultError, RunCancelled, UsageError
from cnai.events import Event, Kind, State
from cnai.run.history import History
from cnai.spec import Ranks

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnai.backends.line import Line
    from cnai.engine.commands import Verb
    from cnai.engine.store import RunFolder
    from cnai.errors import RunFailed
    from cnai.run.series import Metrics
    from cnai.spec import RunSpec

TICK_SECONDS = 1.0


class Run:
    """One run: its state and curves while it is active, its result afterwards, and methods to control it."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.id = folder.run_id
        self.reused = ""
        """When the run started, if `--reuse` found it."""
        self.spec: RunSpec = folder.spec
        self.record: dict[str, Any] = json.loads(folder.record.to_json())
        self._history = History(folder)
        self._history.read()

    @property
    def state(self) -> State:
        """Return the run's state."""
        return self._history.state

    @property
    def reason(self) -> str:
        """Return the reason for the state and what the run waits for, "" if there is neither."""
        waits_for = "" if self.state.final else self._folder.notice
        return " · ".join(filter(None, (self._history.reason, waits_for)))

    @property
    def generation(self) -> int:
        """Return the number of the current generation, from 0."""
        return self._history.generation

    @property
    def world_size(self) -> int:
        """Return the number of ranks of this generation."""
        return self._history.world_size

    @property
    def step(self) -> int | None:
        """Return the last reported step, None before the first."""
        return self._history.step

    @property
    def events(self) -> list[Event]:
        """Return all events so far, in order."""
        return list(self._history.events)

    @property
    def metrics(self) -> Metrics:
        """Return the reported metrics by name."""
        return self._history.metrics

    @property
    def trouble(self) -> str:
        """Tell what is wrong with the training although its code runs: `loss is NaN since step 21`; "" if nothing."""
        return self.metrics.trouble

    @property
    def error(self) -> RunFailed | None:
        """Return the error of a failed run, None otherwise."""
        return self._history.error

    def logs(self, rank: int | None = None, tail: int | None = None) -> str:
        """Return the output of the ranks, oldest first: of all ranks or one, all lines or the last `tail` lines."""
        texts = [
            event.payload["text"]
            for event in self.events
            if event.kind is Kind.LOG and (rank is None or event.rank == rank)
        ]
        text = "".join(texts)
        return text if tail is None else "\n".join(text.splitlines()[-tail:] if tail else [])

    def watch(self, callback: Callable[[list[Event]], None]) -> Callable[[], None]:
        """Call back with the events so far, then from a thread with new batches; returns a function that ends it."""
        return self._history.watch(callback)

    def wait(self, timeout: float | None = None) -> Run:
        """Wait for the end; raises TimeoutError after `timeout` seconds, EngineError if the engine is lost for good."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._history.changed:
            while not self.state.final:
                left = TICK_SECONDS if deadline is None else min(TICK_SECONDS, deadline - time.monotonic())
                if left <= 0:
                    raise TimeoutError(f"run {self.id} is {self.state} after {timeout} s; it keeps running")
                if not self._history.changed.wait(left):
                    self._history.read()
                    self._line.check()
        return self

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end and return what the target returned on rank 0.

        Raises RunFailed with the failing rank's own traceback, RunCancelled, ResultError or TimeoutError.
        """
        self.wait(timeout)
        if self.error is not None:
            raise self.error
        if self.state is not State.SUCCEEDED:
            raise RunCancelled(
                f"run {self.id} is {self.state}{f' ({self.reason})' if self.reason else ''}; it has no result"
            )
        try:
            return results.unpack(self._folder.result.read_bytes())
        except FileNotFoundError:
            return None
        except (ImportError, AttributeError) as error:
            raise ResultError(
                f"the result of {self.id} can't be read here ({error}); import its module first"
            ) from None

    def stop(self) -> None:
        """Request the immediate end of the run."""
        self._wish("stop")

    def pause(self) -> None:
        """Request a checkpoint at the next step and the end of the ranks; `resume` continues there."""
        self._wish("pause")

    def resume(self) -> None:
        """Request that a paused run continues."""
        self._wish("resume")

    def scale(self, ranks: int) -> None:
        """Request a different number of ranks; step, global batch and sample order stay."""
        backends.get(self.spec.backend).check(replace(self.spec, ranks=Ranks.parse(ranks), nodes=None))
        self._wish("scale", ranks)

    def _wish(self, verb: Verb, value: int | None = None) -> None:
        if self.state.final:
            raise UsageError(str(refusal(Wish(verb, value), self.id, Status(state=self.state))))
        self._line.wish(verb, value)

    def follow(self, *, revive: bool = True) -> None:
        """Follow the run live; `revive` restarts an engine that was lost or stopped."""
        self._line.open(revive=revive)

    @cached_property
    def _line(self) -> Line:
        return backends.get(self.spec.backend).line(self._folder, self._history)

    def __repr__(self) -> str:
        step = f", step {self.step}" if self.step is not None else ""
        reused = f", reused the run of {self.reused}" if self.reused else ""
        return f"<Run {self.id}: {self.state}, {self.world_size or self.spec.ranks} ranks{step}{reused}>"
