"""Curve: reduces a metric of any length to a bounded number of points, and keeps its spikes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from cnai.faces.text import drawable

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_POINTS = 160


@dataclass(frozen=True, slots=True)
class Point:
    """Several neighboring reports as one point: a step, their mean, their minimum and their maximum."""

    step: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Curve:
    """The drawn part of one metric. `gaps` are steps whose value can't be drawn; `last` is the last reported value."""

    points: tuple[Point, ...]
    gaps: tuple[int, ...]
    last: float


def curve(steps: Sequence[int], values: Sequence[float], most: int = MOST_POINTS) -> Curve:
    """Return at most `most` points; the lowest and the highest value are always among their bounds."""
    length = min(len(steps), len(values))
    count = min(length, most)
    points, gaps = [], []
    for begin, end in pairwise(length * bucket // count for bucket in range(count + 1)) if count else ():
        step = steps[0 if begin == 0 else length - 1 if end == length else (begin + end - 1) // 2]
        some = values[begin:end]
        if not all(map(drawable, some)):
            gaps.append(step)
            some = [value for value in some if drawable(value)]
        if some:
            points.append(Point(step, math.fsum(some) / len(some), min(some), max(some)))
    return Curve(tuple(points), tuple(gaps), values[length - 1] if length else math.nan)
