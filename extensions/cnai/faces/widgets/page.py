"""Page: a run's view as pieces of HTML; the live view replaces single pieces, a saved notebook keeps them all."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from cnai.events import Kind
from cnai.faces.text import clock, elapsed, headline, summary
from cnai.faces.widgets.curve import curve
from cnai.faces.widgets.drawing import COLORS, GRAY, WIDTH, Drawing, draw, picture

if TYPE_CHECKING:
    from cnai.run import Run

MOST_CHARTS = 12
LOG_LINES, LOG_CHARACTERS = 200, 12_000


@dataclass(frozen=True, slots=True)
class Page:
    """The pieces, in the order in which they are shown; a piece without content is empty."""

    head: str
    error: str
    charts: str
    log: str


@cache
def source(name: str) -> str:
    """Return the text of a file in this module's folder."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def drawings(run: Run) -> list[Drawing]:
    """Draw the first 12 metrics in the order they were first reported."""
    shown = list(run.metrics.items())[:MOST_CHARTS]
    # Copies the series, because new reports arrive while we draw.
    return [
        draw(name, curve(list(series.steps), list(series.values)), COLORS[at % len(COLORS)])
        for at, (name, series) in enumerate(shown)
        if series.values
    ]


def page(run: Run) -> Page:
    """Return the pieces of the live view."""
    charts = "".join(_figure(drawing, drawing.svg.replace(f'color="{GRAY}"', "", 1)) for drawing in drawings(run))
    return Page(_head(run), _error(run), charts + _more(run), _log(run))


def saved(run: Run) -> dict[str, str]:
    """Return a static view of a run for the saved notebook; it needs neither a widget nor a kernel."""
    drawn = drawings(run)
    pictures = "".join(_figure(drawing, _image(drawing)) for drawing in drawn)
    identity = f"cnai-{secrets.token_hex(4)}"
    time = f'<span class="cnai-clock">{clock(elapsed(run))}</span>'
    log = f'<details class="cnai-log"><summary>log</summary>{_log(run)}</details>' if _log(run) else ""
    html = (
        f'<style>{source("view.css")}</style><div class="cnai-run" id="{identity}">'
        f'<div class="cnai-head">{_head(run)}{time}</div>{_error(run)}'
        f'<div class="cnai-charts">{pictures}{_more(run)}</div>{log}</div>'
        f'<script>{{{source("hover.js")}\nhover(document.getElementById("{identity}"))}}</script>'
    )
    bundle = {"text/plain": summary(run, width=100), "text/html": html}
    if drawn:
        bundle["image/svg+xml"] = picture(drawn, headline(run))
    return bundle


def _head(run: Run) -> str:
    ranks = run.world_size or run.spec.ranks
    facts = [f"{ranks} rank{'' if str(ranks) == '1' else 's'}"]
    if run.generation:
        facts.append(f"generation {run.generation}")
    if run.step is not None:
        facts.append(f"step {run.step:,}")
    if run.reused:
        facts.append(f"reused the run of {escape(run.reused)}")
    state = run.state
    said = " · ".join(filter(None, ("" if run.error else run.reason, run.trouble)))
    reason = f'<span class="cnai-reason">{escape(said)}</span>' if said else ""
    return (
        f'<strong class="cnai-name" title="{escape(run.id)}">{escape(run.spec.name)}</strong> '
        f'<span class="cnai-state cnai-{state.lower()}">{state}</span> '
        f'<span class="cnai-facts">{" · ".join(facts)}</span> {reason}'
    )


def _error(run: Run) -> str:
    if run.error is None:
        return ""
    error = run.error
    parts = [f'<div class="cnai-summary">{escape(error.summary)}</div>']
    if error.hint:
        parts.append(f'<div class="cnai-hint">{escape(error.hint)}</div>')
    if error.traceback:
        parts.append(f"<pre>{escape(error.traceback.rstrip())}</pre>")
    return f'<div class="cnai-error">{"".join(parts)}</div>'


def _figure(drawing: Drawing, inside: str) -> str:
    return f'<figure class="cnai-chart" data-points="{escape(drawing.points)}">{inside}</figure>'


def _image(drawing: Drawing) -> str:
    """Return a chart as an image, which notebooks show even before they are trusted."""
    data = base64.b64encode(drawing.svg.encode()).decode()
    return f'<img alt="{escape(drawing.name)}" width="{WIDTH}" src="data:image/svg+xml;base64,{data}">'


def _more(run: Run) -> str:
    hidden = len(run.metrics) - MOST_CHARTS
    return f'<p class="cnai-more">and {hidden} more in run.metrics</p>' if hidden > 0 else ""


def _log(run: Run) -> str:
    text = tail(run)
    return f"<pre>{escape(text)}</pre>" if text else ""


def tail(run: Run) -> str:
    """Return the last lines that the ranks printed, each with its rank's number if there are several ranks."""
    many = run.world_size > 1
    lines: list[str] = []
    for event in reversed(run.events):
        if event.kind is Kind.LOG:
            prefix = f"[{event.rank}] " if many else ""
            lines += [prefix + line for line in reversed(event.payload["text"].splitlines())]
            if len(lines) >= LOG_LINES:
                break
    return "\n".join(reversed(lines[:LOG_LINES]))[-LOG_CHARACTERS:]
