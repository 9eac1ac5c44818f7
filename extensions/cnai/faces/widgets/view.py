"""View: the live widget. Its state lives here, its pixels in view.js; it sends at most 5 updates per second."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets
from IPython.display import publish_display_data

from cnai.errors import CnaiError
from cnai.events import State
from cnai.faces.text import elapsed
from cnai.faces.widgets.page import page, saved, source

if TYPE_CHECKING:
    from cnai.events import Event
    from cnai.run import Run

SECONDS_BETWEEN = 0.2
CHECK_SECONDS = 5.0
WIDGET = "application/vnd.jupyter.widget-view+json"


class RunView(anywidget.AnyWidget):
    """Shows a run until it ends; several outputs may show the same view."""

    _esm = source("hover.js") + source("view.js")
    _css = source("view.css")

    head = traitlets.Unicode().tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)
    charts = traitlets.Unicode().tag(sync=True)
    log = traitlets.Unicode().tag(sync=True)
    notice = traitlets.Unicode().tag(sync=True)
    clock = traitlets.Dict().tag(sync=True)
    """The elapsed seconds, and whether the clock is running."""
    controls = traitlets.Dict().tag(sync=True)
    """The buttons that make sense now, and the number of ranks; empty: no buttons."""

    def __init__(self, run: Run, *, controls: bool) -> None:
        super().__init__()
        self.run, self.may_control = run, controls
        self._display_ids: list[str] = []
        self._news, self._painting, self._ended = threading.Event(), threading.Lock(), False
        # ipykernel 7.4 passes clicks to the thread that drew last: the main thread, which a waiting cell keeps busy.
        # Passing them to the subshell that the page addressed handles them immediately.
        self.comm._reply_subshell_for = lambda _, asked: asked
        self.paint()
        self.on_msg(self._clicked)

    def show(self, display_id: str, *, keep: bool) -> None:
        """Publish an output that shows this view; with `keep`, a static picture replaces it when the run ends."""
        with self._painting:
            bundle: dict[str, Any] = dict(saved(self.run))
            if not (self._ended and keep):
                bundle[WIDGET] = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
            publish_display_data(bundle, transient={"display_id": display_id})
            if keep:
                self._display_ids.append(display_id)

    def paint(self) -> None:
        """Update the view from the run's current state."""
        run = self.run
        now = page(run)
        with self.hold_sync():
            self.head, self.error, self.charts, self.log = now.head, now.error, now.charts, now.log
            self.clock = {"seconds": round(elapsed(run), 1), "running": not run.state.final}
            self.controls = _buttons(run) if self.may_control else {}

    def follow(self) -> None:
        """Repaint in the background until the run has ended."""
        threading.Thread(target=self._follow, name=f"cnai-view-{self.run.id}", daemon=True).start()

    def _follow(self) -> None:
        forget = self.run.watch(self._hear)
        self._connect()
        state = self.run.state
        while not self._ended:
            heard = self._news.wait(CHECK_SECONDS)
            self._news.clear()
            if not heard and (trouble := _trouble(self.run)):
                self.notice = trouble
            if self.run.state is not state:
                state, self.notice = self.run.state, ""
            begun = time.monotonic()
            with self._painting:
                if not self._ended:
                    self.paint()
            # Drawing takes at most a tenth of the time, so that the kernel stays responsive even with very long curves.
            time.sleep(max(SECONDS_BETWEEN, 9 * (time.monotonic() - begun)))
        forget()

    def _connect(self) -> None:
        """Follow the run, because a run from a list of runs is not followed yet."""
        try:
            if not self.run.state.final:
                self.run.follow(revive=False)
        except CnaiError as error:
            self.notice = str(error)

    def _hear(self, _: list[Event]) -> None:
        """Note new events; show the run's end right here, before a cell that waits for the run returns.

        A program that executes a notebook keeps only the output that arrives while a cell runs.
        """
        if self.run.state.final:
            with self._painting:
                if not self._ended:
                    self._ended = True
                    self._end()
        self._news.set()

    def _end(self) -> None:
        self.notice = ""
        self.paint()
        for display_id in self._display_ids:
            publish_display_data(saved(self.run), transient={"display_id": display_id}, update=True)

    def _clicked(self, _: Any, message: dict[str, Any], __: Any) -> None:
        """Carry out a click; a read-only view ignores all messages from the page."""
        if not self.may_control or message.get("do") not in _PROGRESS:
            return
        verb = message["do"]
        try:
            self.notice = f"{_PROGRESS[verb]}…"
            if verb == "scale":
                self.run.scale(int(message["ranks"]))
            else:
                getattr(self.run, verb)()
        except (CnaiError, ValueError, KeyError) as error:
            self.notice = str(error)


_PROGRESS = {"stop": "stopping", "pause": "pausing", "resume": "resuming", "scale": "resizing"}


def _buttons(run: Run) -> dict[str, Any]:
    if run.state.final:
        return {}
    paused = run.state is State.PAUSED
    return {"pause": not paused, "resume": paused, "ranks": run.world_size or run.spec.ranks.maximum}


def _trouble(run: Run) -> str:
    """Return the reason why no events arrive, "" if the run is just quiet."""
    try:
        run.wait(0.01)
    except TimeoutError:
        return ""
    except CnaiError as error:
        return str(error)
    return ""
