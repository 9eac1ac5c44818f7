"""View: the live widget. State here, pixels in view.js; at most 5 messages a second however much is reported."""

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
    """Shows a run while it goes on; several outputs may show the same view."""

    _esm = source("hover.js") + source("view.js")
    _css = source("view.css")

    head = traitlets.Unicode().tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)
    charts = traitlets.Unicode().tag(sync=True)
    log = traitlets.Unicode().tag(sync=True)
    notice = traitlets.Unicode().tag(sync=True)
    clock = traitlets.Dict().tag(sync=True)
    """Seconds so far, and whether they go on."""
    controls = traitlets.Dict().tag(sync=True)
    """Which buttons make sense now, and the number of ranks; empty: none."""

    def __init__(self, run: Run, *, controls: bool) -> None:
        super().__init__()
        self.run, self.may_control = run, controls
        self._display_ids: list[str] = []
        self._news, self._painting, self._ended = threading.Event(), threading.Lock(), False
        # ipykernel 7.4 hands clicks to the thread that drew last, the main one, which a waiting cell keeps busy;
        # the page sends them to a subshell, where they are heard at once.
        self.comm._reply_subshell_for = lambda _, asked: asked
        self.paint()
        self.on_msg(self._clicked)

    def show(self, display_id: str, *, keep: bool) -> None:
        """Publish an output that shows this view; with `keep` it becomes a picture when the run ends."""
        with self._painting:
            bundle: dict[str, Any] = dict(saved(self.run))
            if not (self._ended and keep):
                bundle[WIDGET] = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
            publish_display_data(bundle, transient={"display_id": display_id})
            if keep:
                self._display_ids.append(display_id)

    def paint(self) -> None:
        """Take over what the run is like now."""
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
            # Drawing may take a tenth of the time, so that a kernel with very long curves stays quick.
            time.sleep(max(SECONDS_BETWEEN, 9 * (time.monotonic() - begun)))
        forget()

    def _connect(self) -> None:
        """Hear of the run at once, also if it comes from a list of runs, which nobody follows."""
        try:
            if not self.run.state.final:
                self.run.follow(revive=False)
        except CnaiError as error:
            self.notice = str(error)

    def _hear(self, _: list[Event]) -> None:
        """Note that there is news. The end is shown before anybody who waits for the run goes on.

        A notebook that is executed by a program takes what comes while a cell runs, and nothing afterwards.
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
        """Pass on what a person clicked, unless this view is read-only, whatever the page sends."""
        if not self.may_control or message.get("do") not in _WISHES:
            return
        verb = message["do"]
        try:
            self.notice = f"{_WISHES[verb]}…"
            if verb == "scale":
                self.run.scale(int(message["ranks"]))
            else:
                getattr(self.run, verb)()
        except (CnaiError, ValueError, KeyError) as error:
            self.notice = str(error)


_WISHES = {"stop": "stopping", "pause": "pausing", "resume": "resuming", "scale": "resizing"}


def _buttons(run: Run) -> dict[str, Any]:
    if run.state.final:
        return {}
    paused = run.state is State.PAUSED
    return {"pause": not paused, "resume": paused, "ranks": run.world_size or run.spec.ranks.maximum}


def _trouble(run: Run) -> str:
    """Return what stands in the way of news, "" if it is just quiet."""
    try:
        run.wait(0.01)
    except TimeoutError:
        return ""
    except CnaiError as error:
        return str(error)
    return ""
