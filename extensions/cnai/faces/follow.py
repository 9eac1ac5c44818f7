"""Follow: shows a run live in a terminal until it ends, or as plain lines if the output is not a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TextIO

from cnai.events import Event, Kind
from cnai.faces.text import headline, latest, sparkline, summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnai.run import Run

TICK_SECONDS = 0.2
PLAIN_METRICS_SECONDS = 2.0
ERASE_LINE = "\r\x1b[2K"


class Detached(KeyboardInterrupt):
    """The user interrupted the waiting; the run continues."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"detached; the run continues: %cnai attach {run_id} shows it, %cnai stop {run_id} stops it")

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def follow(run: Run, out: TextIO | None = None) -> None:
    """Write logs, states and metrics until the run ends, then a summary; a failed run raises nothing."""
    screen = _Screen(run, out or sys.stdout)
    for batch in _batches(run):
        screen.take(batch)
    screen.close()


def follow_logs(run: Run, rank: int | None = None, tail: int | None = None, out: TextIO | None = None) -> None:
    """Write the ranks' output until the run ends, starting with the last `tail` lines so far (None: all lines)."""
    out = out or sys.stdout
    for number, batch in enumerate(_batches(run)):
        lines = list(_log_lines(batch, rank, many=rank is None and run.world_size > 1))
        if number == 0 and tail is not None:
            lines = lines[-tail:] if tail else []
        out.writelines(f"{line}\n" for line in lines)
        out.flush()


def _batches(run: Run) -> Iterator[list[Event]]:
    """Yield the events so far, then new events (or none) at least every 0.2 s, up to the run's last event."""
    events: SimpleQueue[list[Event]] = SimpleQueue()
    forget = run.watch(events.put)
    try:
        while True:
            over = run.state.final
            yield _drain(events)
            if over:
                return
            try:
                run.wait(TICK_SECONDS)
            except TimeoutError:
                continue
    finally:
        forget()


def _drain(events: SimpleQueue[list[Event]]) -> list[Event]:
    batch: list[Event] = []
    while True:
        try:
            batch += events.get_nowait()
        except Empty:
            return batch


def _log_lines(batch: list[Event], rank: int | None, *, many: bool) -> Iterator[str]:
    for event in batch:
        if event.kind is Kind.LOG and (rank is None or event.rank == rank):
            for line in event.payload["text"].splitlines():
                yield f"[{event.rank}] {line}" if many else line


class _Screen:
    """Writes scrolling lines and, on a terminal, a status line at the bottom that it rewrites."""

    def __init__(self, run: Run, out: TextIO) -> None:
        self._run, self._out, self._live = run, out, out.isatty()
        self._metrics_at = 0.0

    def take(self, batch: list[Event]) -> None:
        """Show new events."""
        lines = list(self._lines(batch))
        if self._live:
            lines = [ERASE_LINE + "\n".join([*lines, ""])] if lines else []
            self._out.write("".join(lines) + ERASE_LINE + self._status())
        else:
            self._out.writelines(f"{line}\n" for line in lines)
        self._out.flush()

    def close(self) -> None:
        """Write the summary."""
        self._out.write((ERASE_LINE if self._live else "") + summary(self._run, error=False) + "\n")
        self._out.flush()

    def _lines(self, batch: list[Event]) -> Iterator[str]:
        yield from _log_lines(batch, None, many=self._run.world_size > 1)
        if self._live:
            return
        for event in batch:
            if event.kind is Kind.STATE:
                yield " · ".join(filter(None, (str(event.payload["state"]), event.payload.get("reason", ""))))
        due = time.monotonic() - self._metrics_at > PLAIN_METRICS_SECONDS
        if due and any(event.kind is Kind.METRIC for event in batch):
            self._metrics_at = time.monotonic()
            yield f"step {self._run.step}  {latest(self._run)}"

    def _status(self) -> str:
        run = self._run
        curve = next((sparkline(series.values, 16) for series in list(run.metrics.values())), "")
        text = f"{headline(run)} · {latest(run)} {curve}"
        return text[: shutil.get_terminal_size().columns - 1]
