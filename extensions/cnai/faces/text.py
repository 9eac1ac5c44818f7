"""Text: formats runs and lists for a terminal, a log or a saved notebook."""

from __future__ import annotations

import html
import math
import shutil
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cnai.backends.engines import Engines
    from cnai.run import Run

BLOCKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 32
HUGE = 1e300


class Text(str):
    """A string that a notebook shows without quotes and escapes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Table(list[Any]):
    """A list that displays as a table: `columns` holds the headings, `cells` one row of text per item."""

    def __init__(
        self, items: Iterable[Any], columns: Sequence[str], cells: Sequence[Sequence[str]], empty: str
    ) -> None:
        super().__init__(items)
        self._columns, self._cells, self._empty = columns, cells, empty

    def __repr__(self) -> str:
        if not self:
            return self._empty
        rows = [self._columns, *self._cells]
        widths = [max(len(row[column]) for row in rows) for column in range(len(self._columns))]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    def _repr_html_(self) -> str:
        if not self:
            return f"<em>{html.escape(self._empty)}</em>"
        head = "".join(f"<th style='text-align:left'>{html.escape(name)}</th>" for name in self._columns)
        body = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._cells
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def runs_table(runs: Sequence[Run]) -> Table:
    """Return runs as a table, in the order given."""
    rows = [
        (
            run.id,
            str(run.state),
            str(run.world_size or run.spec.ranks),
            "" if run.step is None else str(run.step),
            " · ".join(filter(None, (latest(run) or run.reason, run.trouble))),
            ago(time.time() - run.record["created"]),
        )
        for run in runs
    ]
    columns = ("run", "state", "ranks", "step", "latest", "started")
    return Table(runs, columns, rows, "no runs yet; start one with %cnai train")


def engines_shown(engines: Engines) -> Table | Text:
    """Return engines on Kubernetes as a table; one that answers itself tells all it knows."""
    from cnai.backends.engines import PodEngine

    pods = [one for one in engines if isinstance(one, PodEngine)]
    if not pods:
        return Text(repr(engines))
    rows = [
        (
            one.engine,
            one.flavor,
            f"{one.nodes} of {one.wanted_nodes}",
            str(one.gpus),
            ", ".join(one.runs),
            "" if one.idle_seconds is None else f"since {clock(one.idle_seconds)}",
            one.reason,
        )
        for one in pods
    ]
    columns = ("engine", "flavor", "nodes", "GPUs", "runs", "idle", "waits for")
    return Table(pods, columns, rows, engines.none)


def summary(run: Run, width: int | None = None, *, error: bool = True) -> str:
    """Return a run as one line of facts and one line per metric with a curve of block characters."""
    lines = [headline(run)]
    room = (width or shutil.get_terminal_size().columns) - SPARK_WIDTH - 16
    for name, series in list(run.metrics.items()):
        lines.append(f"  {name[: max(8, room)]:<12} {sparkline(series.values)} {number(series.values[-1])}")
    if error and run.error is not None:
        lines += ["", str(run.error)]
    return "\n".join(lines)


def headline(run: Run) -> str:
    """Return the facts of a run in one line."""
    ranks = run.world_size or run.spec.ranks
    facts = [run.id, str(run.state), f"{ranks} rank{'' if str(ranks) == '1' else 's'}"]
    if run.generation:
        facts.append(f"generation {run.generation}")
    if run.step is not None:
        facts.append(f"step {run.step}")
    facts.append(clock(elapsed(run)))
    if run.reason and run.error is None:
        facts.append(run.reason)
    if run.trouble:
        facts.append(run.trouble)
    if run.reused:
        facts.append(f"reused the run of {run.reused}")
    return " · ".join(facts)


def latest(run: Run, most: int = 3) -> str:
    """Return the last values of the first `most` metrics."""
    return "  ".join(f"{name} {number(series.values[-1])}" for name, series in list(run.metrics.items())[:most])


def sparkline(values: Sequence[float], width: int = SPARK_WIDTH) -> str:
    """Return a curve of at most `width` block characters, with blanks where no value is finite."""
    if not values:
        return ""
    count = min(width, len(values))
    cuts = [len(values) * cell // count for cell in range(count + 1)]
    means = [_mean(values[a:b]) for a, b in pairwise(cuts)]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    return "".join(_block(mean, low, high) for mean in means)


def drawable(value: float) -> bool:
    """Tell whether a value can be drawn: not NaN, not infinite, and small enough that sums of values don't overflow."""
    return abs(value) < HUGE


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if drawable(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan


def _block(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return " "
    share = (value - low) / (high - low) if high > low else 0.5
    return BLOCKS[min(len(BLOCKS) - 1, int(share * len(BLOCKS)))]


def number(value: float) -> str:
    """Return a number with 4 significant digits, short enough for a label."""
    return f"{value:.4g}"


def elapsed(run: Run) -> float:
    """Return the seconds from the start of a run to its end, or to now if it hasn't ended."""
    events = run.events
    end = events[-1].time if run.state.final and events else time.time()
    return max(0.0, end - float(run.record["created"]))


def clock(seconds: float) -> str:
    """Return a duration as 0:07, 12:05 or 3:00:00."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def ago(seconds: float) -> str:
    """Return an age in its largest unit, such as `3 h ago`."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {name} ago"
    return f"{int(max(0, seconds))} s ago"
