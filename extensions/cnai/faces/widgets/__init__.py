"""Widgets: views of runs in notebooks and apps."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from IPython import get_ipython
from IPython.display import publish_display_data

from cnai import environment

if TYPE_CHECKING:
    from cnai.faces.widgets.view import RunView
    from cnai.run import Run

KEPT_VIEWS = 20
"""How many views of ended runs stay connected, for pages that were closed when the run ended and are reopened later."""

_views: list[RunView] = []
_shown: set[tuple[str, int]] = set()


def show(run: Run, *, controls: bool = True, once: bool = False) -> None:
    """Show a run in the output of this cell: live until it ends, as a static picture afterwards.

    With `once`, the next `show` of this run in the same cell does nothing, because the magic shows a run while it waits
    and then returns the run. In an app the view has no buttons.
    """
    here = (run.id, get_ipython().execution_count)
    if not once and here in _shown:
        _shown.discard(here)
        return
    if once:
        _shown.add(here)
    display_id = f"cnai-{secrets.token_hex(8)}"
    if run.state.final:
        publish_display_data(saved_bundle(run), transient={"display_id": display_id})
        return
    in_app = environment.APP.get()
    view = _view(run, controls=controls and not in_app)
    view.show(display_id, keep=not in_app)


def saved_bundle(run: Run) -> dict[str, str]:
    """Return a static view of a run for the notebook's file."""
    from cnai.faces.widgets.page import saved

    return saved(run)


def _view(run: Run, *, controls: bool) -> RunView:
    """Return the view of a run; all outputs that show the run share it."""
    from cnai.faces.widgets.view import RunView

    for view in _views:
        if view.run is run and view.may_control == controls:
            return view
    fresh = RunView(run, controls=controls)
    fresh.follow()
    ended = [view for view in _views if view.run.state.final]
    for view in ended[: max(0, len(ended) - KEPT_VIEWS)]:
        _views.remove(view)
        view.close()
    _views.append(fresh)
    return fresh
