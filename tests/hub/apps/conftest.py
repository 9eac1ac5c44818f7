"""An app on the real hub, and helpers to publish others."""

from __future__ import annotations

import html
import json
import re
from contextlib import contextmanager

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from cnai.publishing import apps
from hub.realhub import GUEST

FACTS = """\
import json, os, sys
import helper
print("FACTS" + json.dumps({
    "environment": sorted(os.environ),
    "home": os.environ["CNAI_HOME"],
    "folder": os.getcwd(),
    "helped": helper.square(3),
    "data": open("data/points.csv").read(),
}) + "STCAF")"""

WIDGETS = """\
# a source that viewers must not see
import ipywidgets
from IPython.display import display
slider, out = ipywidgets.IntSlider(description="x", max=10), ipywidgets.Output()
def show(change):
    with out:
        out.clear_output(wait=True)
        print("squared:", helper.square(slider.value))
slider.observe(show, "value")
display(slider, out)
show(None)"""

ANYWIDGET = """\
import anywidget, traitlets
class Counter(anywidget.AnyWidget):
    value = traitlets.Int(0).tag(sync=True)
    _esm = '''
    function render({ model, el }) {
      const button = document.createElement("button");
      const show = () => { button.textContent = `count ${model.get("value")}`; };
      button.onclick = () => { model.set("value", model.get("value") + 1); model.save_changes(); };
      model.on("change:value", show);
      show();
      el.append(button);
    }
    export default { render };
    '''
counter, seen = Counter(), ipywidgets.Label("seen 0")
counter.observe(lambda change: setattr(seen, "value", f"seen {change['new']}"), "value")
display(counter, seen)"""

FAILING_BUTTON = """\
button = ipywidgets.Button(description="Fail", icon="bomb")
def fail(_):
    raise ValueError("a-detail-of-the-author")
button.on_click(fail)
button"""


def write(folder, name, *sources):
    """Write a notebook of code cells, given as source, or of complete cells."""
    cells = [new_code_cell(source) if isinstance(source, str) else source for source in sources]
    nbformat.write(new_notebook(cells=cells), folder / name)
    return folder / name


@contextmanager
def at_the_terminal(hub):
    """Make this process a terminal on the hub's machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNAI_HOME", str(hub.home))
        for name in ("JUPYTERHUB_API_TOKEN", "CNAI_HUB_URL"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def terminal(hub):
    """This process is a terminal on the hub's machine until the test ends, because other tests need their own home."""
    with at_the_terminal(hub):
        yield


@pytest.fixture(scope="package")
def app(hub, tmp_path_factory):
    """An app that is shared with guest."""
    folder = tmp_path_factory.mktemp("author")
    (folder / "helper.py").write_text("def square(x):\n    return x * x\n")
    (folder / "unused.py").write_text("1\n")
    (folder / "data").mkdir()
    (folder / "data" / "points.csv").write_text("1,2")
    title = new_markdown_cell("# Squares & <b>more</b>\n\nThe square of $x$ is $x^2$.")
    notebook = write(folder, "My squares.ipynb", title, FACTS, WIDGETS, ANYWIDGET, FAILING_BUTTON)
    with at_the_terminal(hub):
        return apps.publish(notebook, share=[GUEST], include=["data"], slug="squares")


@pytest.fixture(scope="package")
def guest(hub):
    """Guest's browser session."""
    return hub.login(GUEST)


@pytest.fixture(scope="package")
def author(hub):
    """The author's browser session."""
    return hub.login(hub.person)


def path_of(app):
    """Return the path of an app's server on the hub."""
    return f"/user/{app.author}/app-{app.slug}/"


def facts_of(page):
    """Return what the app's first cell printed."""
    return json.loads(re.search("FACTS(.*?)STCAF", html.unescape(page), re.DOTALL)[1])
