"""The live view in a real JupyterLab, in light and dark."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import nbformat
import pytest

from browser.chromium import Visitor, chromium

pytestmark = pytest.mark.browser

SLOW = """\
def slow(steps=3000):
    import time, cnai
    ctx = cnai.context()
    for step in ctx.loop(steps):
        ctx.report(loss=1 / step)
        if step % 10 == 0:
            print("at", step, flush=True)
        time.sleep(0.03)
    return ctx.step"""
CELLS = ("%load_ext cnai", SLOW, "run = %cnai train slow --ranks 2\nrun", "run.wait();")
TOKEN = "of-this-test"


class Lab:
    """JupyterLab on loopback, with a home of its own."""

    def __init__(self, folder, engine_home, theme):
        self.work = folder / "work"
        self.work.mkdir()
        settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        (settings / "themes.jupyterlab-settings").write_text(json.dumps({"theme": f"JupyterLab {theme}"}))
        (settings / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false"}))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        env = {
            **os.environ,
            "HOME": str(folder),
            "CNAI_HOME": str(engine_home),
            "JUPYTER_CONFIG_DIR": str(folder / "config"),
            "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        }
        port = self.url.rpartition(":")[2]
        options = [f"--port={port}", "--port-retries=0", "--ip=127.0.0.1", "--no-browser", "--allow-root"]
        options += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={self.work}"]
        with (folder / "lab.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", *options], env=env, stdout=log, stderr=log
            )
        self._wait()

    def _wait(self):
        deadline = time.monotonic() + 120
        while True:
            assert self._process.poll() is None
            assert time.monotonic() < deadline
            try:
                urllib.request.urlopen(f"{self.url}/api?token={TOKEN}", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)

    def close(self):
        self._process.terminate()
        self._process.wait(timeout=60)


@pytest.fixture(params=["Light", "Dark"])
def lab(request, tmp_path, engine, engine_home):
    lab = Lab(tmp_path, engine_home, request.param)
    lab.dark = request.param == "Dark"
    yield lab
    lab.close()


def test_a_run_is_watched_steered_and_saved_while_the_kernel_waits_for_it(lab):
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    nbformat.write(notebook, lab.work / "run.ipynb")
    with chromium() as browser:
        visitor = Visitor(browser, lab.url)
        page = visitor.page
        page.goto(f"{lab.url}/lab/tree/run.ipynb?token={TOKEN}")
        page.get_by_text("Python 3", exact=False).first.wait_for()
        page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        page.get_by_text("| Idle").wait_for()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        view = page.locator(".cnai-run")
        state, facts = view.locator(".cnai-state"), view.locator(".cnai-facts")

        view.locator(".cnai-chart svg").wait_for()
        moving = view.locator(".cnai-chart").first
        before = moving.get_attribute("data-points")
        page.wait_for_function(
            "before => document.querySelector('.cnai-chart').dataset.points.length > before.length", arg=before
        )
        moving.hover()
        assert view.locator(".cnai-readout b").inner_text().startswith("step ")
        assert is_bright(view) == lab.dark

        view.get_by_role("button", name="Pause").click()
        state.get_by_text("PAUSED").wait_for()
        view.get_by_role("button", name="Resume").click()
        state.get_by_text("RUNNING").wait_for()
        facts.get_by_text("generation 1").wait_for()
        view.get_by_title("one rank fewer").click()
        facts.get_by_text("1 rank · generation 2").wait_for()
        view.get_by_role("button", name="Stop").click()
        state.get_by_text("CANCELLED").wait_for()

        # What was the live view is now a picture, with its read-out and without buttons.
        view.locator("img[alt=loss]").wait_for()
        assert view.get_by_role("button").count() == 0
        view.locator(".cnai-chart").hover()
        assert view.locator(".cnai-readout b").inner_text().startswith("step ")
        page.keyboard.press("Control+s")
        saved = saved_output(lab.work / "run.ipynb")
        assert "CANCELLED" in saved["text/plain"]
        assert set(saved) == {"text/plain", "text/html", "image/svg+xml"}

        # A stranger's notebook: not trusted, no kernel that knows the run.
        (lab.work / "copy.ipynb").write_text((lab.work / "run.ipynb").read_text().replace("run.wait()", "run.wait( )"))
        page.goto(f"{lab.url}/lab/tree/copy.ipynb?token={TOKEN}&reset")
        page.locator("img[alt=loss]").wait_for()
        assert visitor.outside == []


def is_bright(view):
    """Tell whether the text of a view is brighter than half: it is on dark ground."""
    color = view.evaluate("e => getComputedStyle(e).color")  # not of a part, which may be drawn anew meanwhile
    red, green, blue = (
        int(part) for part in color.removeprefix("rgba(").removeprefix("rgb(").rstrip(")").split(",")[:3]
    )
    return red + green + blue > 3 * 128


def saved_output(path, timeout=60):
    """Return the view in a notebook's file, once it was saved."""
    deadline = time.monotonic() + timeout
    while True:
        outputs = nbformat.read(path, 4).cells[2].outputs
        if outputs and "CANCELLED" in outputs[0]["data"]["text/plain"]:
            return outputs[0]["data"]
        assert time.monotonic() < deadline
        time.sleep(0.2)
