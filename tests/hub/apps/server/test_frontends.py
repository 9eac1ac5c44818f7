"""Widgets with a front-end of their own are drawn in apps; a widget without one is named when it is published."""

from __future__ import annotations

import json
import os

import pytest

from browser.chromium import Visitor, chromium
from cnai.publishing.conditions import Conditions
from cnai.publishing.trial import TrialFailed, rehearse
from cnai_hub.apps import frontends
from hub.apps.appserver import PATH, serving
from hub.apps.conftest import write

# As webpack builds an extension: a container in the page that shares the modules of JupyterLab, here of ipywidgets.
SCRIPT = """\
let shared;
window._JUPYTERLAB = window._JUPYTERLAB || {};
window._JUPYTERLAB["jupyter-lamp"] = {
  init: (scope) => { shared = scope; },
  get: async () => {
    const versions = Object.values(shared["@jupyter-widgets/base"]);
    const base = (await (versions.find((each) => each.loaded) || versions[0]).get())();
    class LampModel extends base.DOMWidgetModel {}
    class LampView extends base.DOMWidgetView {
      render() { this.el.textContent = `the lamp is ${this.model.get("light")}`; }
    }
    const exported = { name: "jupyter-lamp", version: "1.0.0", exports: { LampModel, LampView } };
    const activate = (_, registry) => registry.registerWidget(exported);
    const plugin = { id: "jupyter-lamp", autoStart: true, requires: [base.IJupyterWidgetRegistry], activate };
    return () => ({ __esModule: true, default: plugin });
  },
};"""

LAMP = """\
import ipywidgets, traitlets
def synced(value):
    return traitlets.Unicode(value).tag(sync=True)
class Lamp(ipywidgets.DOMWidget):
    _model_module, _view_module = synced("jupyter-lamp"), synced("jupyter-lamp")
    _model_module_version, _view_module_version = synced("1.0.0"), synced("1.0.0")
    _model_name, _view_name, light = synced("LampModel"), synced("LampView"), synced("green")
Lamp()"""


def install(folder, name, script="", **about):
    """Install a labextension below a folder of JUPYTER_PATH."""
    place = folder / "labextensions" / name
    (place / "static").mkdir(parents=True)
    (place / "static" / "remote.js").write_text(script)
    lab = {"_build": {"load": "static/remote.js", "extension": "./extension"}, **about.pop("jupyterlab", {})}
    (place / "package.json").write_text(json.dumps({"name": name, "version": "1.0.0", "jupyterlab": lab, **about}))


SHARES = {"jupyterlab": {"extension": True, "sharedPackages": {"@jupyter-widgets/base": {"bundled": False}}}}


def test_extensions_that_draw_are_served(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    install(tmp_path, "jupyter-lamp", 'register({name:"jupyter-lamp-shade"})', **SHARES)
    install(tmp_path, "@lights/candle", dependencies={"@jupyter-widgets/base": "^6"})
    install(tmp_path, "draws-outputs", jupyterlab={"mimeExtension": True})
    install(tmp_path, "needs-a-whole-lab", 'register({name:"hidden-lamp"})', jupyterlab={"extension": True})
    served = set(frontends.served())
    assert served >= {"jupyter-lamp", "@lights/candle", "draws-outputs", "anywidget"}
    assert not served & {"needs-a-whole-lab", "@voila-dashboards/jupyterlab-preview", "jupyterlab_pygments"}
    used = ["jupyter-lamp", "jupyter-lamp-shade", "@lights/candle", "@jupyter-widgets/controls", "anywidget"]
    assert frontends.lacking(used) == []
    assert frontends.lacking([*used, "nowhere", "hidden-lamp"]) == ["hidden-lamp", "nowhere"]


@pytest.mark.browser
def test_an_app_draws_them(tmp_path, starts_processes):
    extensions, home = tmp_path / "extensions", tmp_path / "home"
    install(extensions, "jupyter-lamp", SCRIPT, **SHARES)
    home.mkdir()
    with serving(home, LAMP, JUPYTER_PATH=str(extensions)) as account, chromium() as browser:
        url = str(account("guest").base_url).rstrip("/")
        visitor = Visitor(browser, url, extra_http_headers={"Authorization": "token guest"})
        visitor.page.goto(url + PATH)
        visitor.page.get_by_text("the lamp is green").wait_for()
        assert visitor.outside == []
        visitor.context.close()


def test_a_widget_that_no_extension_draws_is_named_when_published(tmp_path, starts_processes):
    notebook = write(tmp_path, "lamp.ipynb", "1", LAMP, "2")
    with pytest.raises(TrialFailed, match=r"cell 2\n.*no JupyterLab extension 'jupyter-lamp'"):
        rehearse(
            {"lamp.ipynb": notebook.read_bytes()},
            "lamp.ipynb",
            Conditions(dict(os.environ)),
            deadline_seconds=120,
            progress=print,
        )
