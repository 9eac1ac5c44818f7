"""What an author sends: checked, cleaned, written."""

from __future__ import annotations

import base64
import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cnai.errors import UsageError
from cnai_hub.apps import snapshot


def request(**changes):
    notebook = new_notebook(cells=[new_markdown_cell("# Hello"), new_code_cell("1 + 1")])
    asked = {"slug": "demo", "name": "demo.ipynb", "title": "Demo", "notebook": notebook, "files": {}, "share": []}
    return json.dumps(asked | changes).encode()


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def test_a_snapshot_is_written_with_its_files(tmp_path):
    body = request(files={"helper.py": encoded("x = 1"), "data/points.csv": encoded("1,2")}, share=["guest", "guest"])
    wanted = snapshot.read(body)
    wanted.write(tmp_path / "files")
    assert (tmp_path / "files" / "data" / "points.csv").read_text() == "1,2"
    assert (tmp_path / "files" / "helper.py").read_text() == "x = 1"
    assert wanted.share == ("guest",)
    assert nbformat.read(tmp_path / "files" / "demo.ipynb", 4).metadata.title == "Demo"


def test_outputs_and_what_the_machine_knows_stay_behind():
    cell = new_code_cell("1", outputs=[new_output("stream", text="secret")], execution_count=7)
    cell.metadata = {"tags": ["a"], "collapsed": False, "author": "me"}
    notebook = new_notebook(
        cells=[cell], metadata={"kernelspec": {"name": "my-env", "display_name": "Mine"}, "path": "/x"}
    )
    cleaned = snapshot.clean(json.loads(json.dumps(notebook)), "a.ipynb", "Title")
    assert cleaned.cells[0].outputs == []
    assert cleaned.cells[0].execution_count is None
    assert cleaned.cells[0].metadata == {"tags": ["a"]}
    assert cleaned.metadata.kernelspec.name == "python3"
    assert "path" not in cleaned.metadata


def test_an_old_notebook_is_brought_up_to_date():
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": [], "metadata": {}}]}
    assert snapshot.clean(old, "a.ipynb", "T").nbformat == 4


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"slug": "Not_A_Slug"}, "lowercase letters"),
        ({"slug": "x" * 27}, "at most 26"),
        ({"slug": "a--b"}, "single '-'"),
        ({"name": "../demo.ipynb"}, "not a notebook's file name"),
        ({"name": "demo.py"}, "not a notebook's file name"),
        ({"share": "guest"}, "list of names"),
        ({"share": [1]}, "list of names"),
        ({"files": {"../x": ""}}, "in the notebook's folder"),
        ({"files": {"/etc/passwd": ""}}, "in the notebook's folder"),
        ({"files": {"a\\..\\b": ""}}, "in the notebook's folder"),
        ({"files": {"x": "not base64!"}}, "not a publish request"),
        ({"notebook": {"cells": 3}}, "not a notebook"),
        ({"notebook": None}, "not a notebook"),
        (
            {
                "notebook": {
                    **new_notebook(),
                    "metadata": {"kernelspec": {"name": "ir", "display_name": "R", "language": "R"}},
                }
            },
            "R notebook",
        ),
    ],
)
def test_bad_requests_are_refused_in_one_line(changes, reason):
    with pytest.raises(UsageError) as refused:
        snapshot.read(request(**changes))
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"null", b"\xff", b'{"slug": "a"}'])
def test_what_is_no_request_is_refused(body):
    with pytest.raises(UsageError, match="not a publish request"):
        snapshot.read(body)


def test_too_much_is_refused(monkeypatch):
    monkeypatch.setattr(snapshot, "MOST_BYTES", 10)
    with pytest.raises(UsageError, match="too much for an app"):
        snapshot.read(request(files={"big": encoded("x" * 11)}))
    monkeypatch.setattr(snapshot, "MOST_FILES", 1)
    with pytest.raises(UsageError, match="too much for an app"):
        snapshot.read(request(files={"a": "", "b": ""}))
