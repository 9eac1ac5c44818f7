"""Series: one metric over steps, from the lowest rank that reports it."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cnai.events import Kind

if TYPE_CHECKING:
    from cnai.events import Event


@dataclass(slots=True)
class Series:
    """Values of one metric. `steps` ascend; `times` are seconds since 1970 (UTC)."""

    rank: int
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.steps)

    def has(self, step: int) -> bool:
        """Tell whether there is a value of a step."""
        at = bisect_left(self.steps, step)
        return at < len(self.steps) and self.steps[at] == step

    def put(self, step: int, value: float, time: float) -> None:
        """Add a value, or replace that of the same step: a mean may arrive after a failed rank's own value."""
        at = bisect_left(self.steps, step)
        end = at + self.has(step)
        self.steps[at:end], self.values[at:end], self.times[at:end] = [step], [value], [time]

    def lost_at(self) -> int | None:
        """Return the step from which on no value is finite, None if the last value is finite."""
        step = None
        for at in range(len(self) - 1, -1, -1):
            if math.isfinite(self.values[at]):
                break
            step = self.steps[at]
        return step

    @property
    def kind(self) -> str:
        """Return NaN, inf or -inf, as the last value is, or "" if it is finite."""
        last = self.values[-1]
        return "" if math.isfinite(last) else str(last).replace("nan", "NaN")

    def cut(self, step: int) -> None:
        """Remove the values after a step, which a new generation will report again."""
        keep = bisect_right(self.steps, step)
        del self.steps[keep:], self.values[keep:], self.times[keep:]


class Metrics(dict[str, Series]):
    """Series by name, folded from events."""

    @property
    def trouble(self) -> str:
        """Tell which metrics are no longer finite, and since which step; "" if all are."""
        found = [(name, series.lost_at()) for name, series in list(self.items())]
        return " · ".join(f"{name} is {self[name].kind} since step {step}" for name, step in found if step is not None)

    def add(self, event: Event) -> None:
        """Add a metric event; a generation event removes the values that its ranks will report again."""
        if event.kind is Kind.GENERATION:
            for series in self.values():
                series.cut(event.payload.get("from_step", 0))
        elif event.kind is Kind.METRIC:
            for name, value in event.payload.items():
                self._append(name, float(value), event)

    def _append(self, name: str, value: float, event: Event) -> None:
        rank = event.rank or 0
        series = self.get(name)
        if series is None or rank < series.rank:
            series = self[name] = Series(rank)
        if rank > series.rank and (event.step is None or series.has(event.step)):
            return  # a higher rank adds only the last steps before it failed, which the lower rank may lack
        step = event.step if event.step is not None else (series.steps[-1] + 1 if series.steps else 1)
        series.put(step, value, event.time)
