"""The live view in a real kernel: how much it sends, and what stays in the notebook's file."""

import json
import os
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from faces.conftest import FIT
from faces.kernels import WIDGET

FLOOD = """
def flood(reports):
    import cnai
    ctx = cnai.context()
    for at in range(reports):
        ctx.report(loss=(at * 7919 % 101) / (at + 1), accuracy=at)
        if at % 100 == 0:
            print("line", at)
"""


def sizes(kernel, since):
    """Return the size of each message of views, from a position in the kernel's messages on."""
    updates = [m for m in kernel.messages[since:] if m["msg_type"] == "comm_msg"]
    return [len(json.dumps(m["content"])) for m in updates if m["content"]["data"].get("method") == "update"]


@pytest.mark.parametrize("reports", [100, 10_000])
def test_many_reports_do_not_slow_the_page(kernel, reports):
    kernel.run(FLOOD)
    since = len(kernel.messages)
    kernel.run(f"run = %cnai train flood reports={reports}\nrun")
    cell = kernel.run("run.wait(120)\nprint(len(run.metrics['loss']), run.events[-1].time - run.record['created'])")
    count, seconds = cell.stdout.split()
    assert int(count) == reports
    sent = sizes(kernel, since)
    assert len(sent) <= 5 * float(seconds) + 10, "at most 5 a second, and a few at the beginning and the end"
    assert max(sent) < 60_000


def test_two_outputs_share_one_view_and_both_become_pictures(kernel):
    kernel.run("run = %cnai train fit steps=40 pause=0.05")
    shown = [kernel.run("run").displays[0][WIDGET]["model_id"] for _ in range(2)]
    assert shown[0] == shown[1]
    since = len(kernel.messages)
    kernel.run("run.wait(60)")
    updates = [m["content"] for m in kernel.messages[since:] if m["msg_type"] == "update_display_data"]
    assert len({update["transient"]["display_id"] for update in updates}) == 2
    assert all(WIDGET not in update["data"] and "SUCCEEDED" in update["data"]["text/plain"] for update in updates)


def test_a_finished_run_is_a_picture_at_once(kernel):
    kernel.run("run = %cnai train fit --wait")
    (shown,) = kernel.run("run").displays
    assert set(shown) == {"text/plain", "text/html", "image/svg+xml"}


def click(kernel, shown, **message):
    """Send what a button of a view sends."""
    model = shown[WIDGET]["model_id"]
    content = {"comm_id": model, "data": {"method": "custom", "content": message}}
    kernel.client.shell_channel.send(kernel.client.session.msg("comm_msg", content))


def test_buttons_stop_a_run_and_refusals_are_shown(kernel):
    (shown,) = kernel.run("run = %cnai train fit steps=1000 pause=0.1\nrun").displays
    click(kernel, shown, do="pause")
    kernel.until(lambda m: "can't pause" in str(m["content"].get("data", {}).get("state", {}).get("notice")))
    click(kernel, shown, do="stop")
    assert kernel.run("print(run.wait(60).state)").stdout == "CANCELLED\n"


def test_a_read_only_view_ignores_whatever_a_page_sends(kernel):
    kernel.run("run = %cnai train fit steps=1000 pause=0.1 --name guarded")
    (shown,) = kernel.run("shown = %cnai attach guarded --read-only").displays
    for message in ({"do": "stop"}, {"do": "scale", "ranks": 0}, {"do": "connect"}, {"do": "_clicked"}):
        click(kernel, shown, **message)
    kernel.run("import time; time.sleep(1)")
    assert kernel.run("print(run.state)").stdout == "RUNNING\n"
    (shown,) = kernel.run("run").displays
    click(kernel, shown, do="connect")  # no verb: ignored with buttons too
    click(kernel, shown, do="stop")
    assert kernel.run("print(run.wait(60).state)").stdout == "CANCELLED\n"


def test_an_app_has_no_buttons_and_keeps_its_live_view(kernel):
    kernel.run("import os; os.environ['CNAI_APP'] = '1'\nrun = %cnai train fit steps=1000 pause=0.1")
    (shown,) = kernel.run("run").displays
    opened = [m["content"] for m in kernel.messages if m["msg_type"] == "comm_open"]
    (state,) = [o["data"]["state"] for o in opened if o["comm_id"] == shown[WIDGET]["model_id"]]
    assert state.get("controls", {}) == {}
    click(kernel, shown, do="stop")
    kernel.run("import time; time.sleep(1)")
    assert kernel.run("print(run.state)").stdout == "RUNNING\n"
    since = len(kernel.messages)
    kernel.run("run.stop(); run.wait(60); del os.environ['CNAI_APP']")
    assert not [m for m in kernel.messages[since:] if m["msg_type"] == "update_display_data"]


def test_many_runs_leave_few_views_behind(kernel):
    code = """
    from cnai.faces import widgets
    import threading
    for _ in range(widgets.KEPT_VIEWS + 5):
        run = %cnai train fit steps=2
        display(run)
        run.wait(60)
    print(len(widgets._views) <= widgets.KEPT_VIEWS + 1)
    """
    assert kernel.run("\n".join(line[4:] for line in code.splitlines())).stdout == "True\n"


@pytest.fixture
def notebook():
    """Return a function that makes a notebook of cells."""

    def make(*cells):
        made = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
        made.cells = [nbformat.v4.new_code_cell(source) for source in ("%load_ext cnai", FIT, *cells)]
        return made

    return make


@pytest.mark.parametrize(
    "cells",
    [
        ("run = %cnai train fit steps=30 pause=0.02\nrun", "run.result()"),
        ("run = %cnai train fit\nrun", "1", "run.wait()"),
        ("%cnai train fit --wait",),
        ("%%cnai train --return y\nimport cnai\ncnai.context().report(loss=1.0)\ny = 1",),
    ],
)
def test_an_executed_notebook_keeps_the_final_curve(engine, tmp_path, notebook, cells):
    made = notebook(*cells)
    NotebookClient(made, timeout=180, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (output,) = made.cells[2].outputs
    assert set(output["data"]) == {"text/plain", "text/html", "image/svg+xml"}
    assert "SUCCEEDED" in output["data"]["text/plain"]
    nbformat.write(made, tmp_path / "made.ipynb")
    page = convert(tmp_path / "made.ipynb")
    assert '<img alt="loss"' in page
    assert "SUCCEEDED" in page


def convert(path):
    """Convert a notebook as `jupyter nbconvert` does; returns the page."""
    done = subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "html", "--stdout", str(path)],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
