"""Drawing: draws a curve as SVG, the same in the live view and in a saved notebook."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from cnai.faces.text import number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cnai.faces.widgets.curve import Curve, Point

WIDTH, HEIGHT = 340, 170
LEFT, RIGHT, TOP, BOTTOM = 46, 328, 34, 146
COLORS = ("#4c8df6", "#e8833a", "#2fa37c", "#b765d1", "#14a0b8", "#b98b13", "#7a7fd6", "#d4679a")
ALARM = "#e5484d"
GRAY = "#7d868f"
"""The value of `currentColor` in a standalone picture: readable on white and on black."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart, and the positions of its points for the read-out: JSON of [[x, y, step, mean, low, high], …]."""

    name: str
    svg: str
    points: str


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        return self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin)


def draw(name: str, curve: Curve, color: str) -> Drawing:
    """Draw one metric over its steps. Axes take the color of the text around the chart."""
    x, y = _scales(curve)
    parts = [_title(name, curve, color), _axes(x, y, curve), _line(curve, x, y, color), _alarms(curve, x)]
    body = "".join(parts)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(name)}" font-family="system-ui,sans-serif" font-size="10" fill="currentColor" '
        f'color="{GRAY}">{body}</svg>'
    )
    where = [
        [round(x(p.step), 1), round(y(p.mean), 1), p.step, *map(_short, (p.mean, p.low, p.high))] for p in curve.points
    ]
    return Drawing(name, svg, json.dumps(where, separators=(",", ":")))


def picture(drawings: list[Drawing], title: str) -> str:
    """Return one SVG file with a title and all charts below it."""
    columns = min(2, max(1, len(drawings)))
    rows = math.ceil(len(drawings) / columns)
    width, height = columns * WIDTH, 24 + rows * HEIGHT
    charts = "".join(
        drawing.svg.replace("<svg ", f'<svg x="{at % columns * WIDTH}" y="{24 + at // columns * HEIGHT}" '
                            f'width="{WIDTH}" height="{HEIGHT}" ', 1)
        for at, drawing in enumerate(drawings)
    )  # fmt: skip
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui,sans-serif"><text x="8" y="16" font-size="12" fill="{GRAY}">{escape(title)}</text>'
        f"{charts}</svg>"
    )


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _scales(curve: Curve) -> tuple[_Scale, _Scale]:
    steps = [point.step for point in curve.points] + list(curve.gaps)
    first, last = (min(steps), max(steps)) if steps else (0, 1)
    low = min((point.low for point in curve.points), default=0.0)
    high = max((point.high for point in curve.points), default=1.0)
    if high - low <= abs(high) * 1e-9:
        room = abs(high) * 0.05 or 0.5
        low, high = low - room, high + room
    room = (high - low) * 0.04
    return _Scale(first, max(last, first + 1), LEFT, RIGHT), _Scale(low - room, high + room, BOTTOM, TOP)


def _title(name: str, curve: Curve, color: str) -> str:
    shown = name if len(name) <= 26 else name[:25] + "…"
    alarm = not math.isfinite(curve.last)
    return (
        f'<circle cx="12" cy="14" r="4" fill="{color}"/>'
        f'<text x="22" y="18" font-size="12" font-weight="600">{escape(shown)}</text>'
        f'<text x="{RIGHT}" y="18" font-size="13" font-weight="600" text-anchor="end" '
        f'fill="{ALARM if alarm else color}">{number(curve.last)}</text>'
    )


def _axes(x: _Scale, y: _Scale, curve: Curve) -> str:
    grid = "".join(
        f'<path d="M{LEFT} {y(tick):.1f}H{RIGHT}" stroke="currentColor" stroke-opacity=".16"/>'
        f'<text x="{LEFT - 6}" y="{y(tick) + 3.5:.1f}" text-anchor="end" class="cnai-tick">{_label(tick)}</text>'
        for tick in _ticks(y.low, y.high, 4)
    )
    base = f'<path d="M{LEFT} {BOTTOM}H{RIGHT}" stroke="currentColor" stroke-opacity=".4"/>'
    steps = "".join(
        f'<text x="{x(tick):.1f}" y="{BOTTOM + 14}" text-anchor="middle" class="cnai-tick">{_label(tick)}</text>'
        for tick in _ticks(x.low, x.high, 5)
        if tick == int(tick) and curve.points
    )
    return f"{grid}{base}{steps}"


def _line(curve: Curve, x: _Scale, y: _Scale, color: str) -> str:
    runs = list(_unbroken(curve))
    bands = "".join(
        f'<path d="{_path(part, x, lambda p: y(p.high))}{_path(part[::-1], x, lambda p: y(p.low), "L")}Z" '
        f'fill="{color}" fill-opacity=".22" stroke="{color}" stroke-opacity=".3" stroke-width=".6"/>'
        for part in runs
        if any(point.low < point.high for point in part)
    )
    lines = "".join(
        f'<path d="{_path(part, x, lambda p: y(p.mean))}" fill="none" stroke="{color}" stroke-width="1.8" '
        'stroke-linejoin="round" stroke-linecap="round"/>'
        if len(part) > 1
        else f'<circle cx="{x(part[0].step):.1f}" cy="{y(part[0].mean):.1f}" r="2.5" fill="{color}"/>'
        for part in runs
    )
    return bands + lines


def _unbroken(curve: Curve) -> Iterator[list[Point]]:
    """Split the points wherever a value was not finite."""
    gaps, part = sorted(curve.gaps), list["Point"]()
    for point in curve.points:
        if part and any(part[-1].step <= gap <= point.step for gap in gaps):
            yield part
            part = []
        part.append(point)
    if part:
        yield part


def _path(points: list[Point], x: _Scale, y: Callable[[Point], float], begin: str = "M") -> str:
    return begin + "L".join(f"{x(point.step):.1f} {y(point):.1f}" for point in points)


def _alarms(curve: Curve, x: _Scale) -> str:
    """Mark where a value was NaN or infinite."""
    return "".join(
        f'<path d="M{x(gap):.1f} {BOTTOM - 7}l4 7h-8z" fill="{ALARM}"><title>not finite at step {gap}</title></path>'
        for gap in curve.gaps
    )


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Return about `most` round numbers between `low` and `high`."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= rough)
    first = math.ceil(low / size)
    return [count * size for count in range(first, math.floor(high / size) + 1)]


def _label(value: float) -> str:
    if abs(value) >= 1e4:
        return next(
            (f"{value / unit:.3g}{sign}" for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if abs(value) >= unit),
            "",
        )
    return f"{value:.3g}"
