"""An author's upload is checked, cleaned, and written to disk."""

from __future__ import annotations

import io
import json
import tarfile

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cnai.errors import UsageError
from cnai_hub.apps import snapshot
from cnai_hub.apps.bundle import pack, unpack

NOTEBOOK = new_notebook(cells=[new_markdown_cell("# Hello"), new_code_cell("1 + 1")])
RUN = {"fit-1/spec.json": "{}", "fit-1/record.json": "{}", "fit-1/result": "x"}


def bundle(**members):
    """Return a tar archive of these members, given by path."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        for name, content in members.items():
            member = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = b"" if isinstance(content, tarfile.TarInfo) else content.encode()
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    body.seek(0)
    return body


def request(notebook=NOTEBOOK, files=(), runs=(), **changes):
    asked = {"slug": "demo", "name": "demo.ipynb", "title": "Demo", "share": []} | changes
    members = {"request.json": json.dumps(asked), "files/demo.ipynb": json.dumps(notebook)}
    members |= {f"files/{name}": content for name, content in dict(files).items()}
    return bundle(**members | {f"runs/{name}": content for name, content in dict(runs).items()})


def test_a_snapshot_is_written_with_its_files(tmp_path):
    body = request(files={"helper.py": "x = 1", "data/points.csv": "1,2"}, share=["guest", "guest"])
    wanted = snapshot.read(body)
    wanted.write(tmp_path)
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
        ({"share": "guest"}, "share must be a list; given: 'guest'"),
        ({"share": [1]}, "share[0] must be text; given: 1"),
        ({"share": [""]}, "list of names"),
        ({"files": {"../x": ""}}, "in the notebook's folder"),
        ({"files": {"../../x": ""}}, "in the notebook's folder"),
        ({"files": {"a\\..\\b": ""}}, "in the notebook's folder"),
        ({"runs": {"fit-1/spec.json": "{}"}}, "run 'fit-1' lacks record.json"),
        ({"runs": RUN | {"fit-1/payload": ""}}, "the allowed files of a run are"),
        ({"runs": RUN | {"fit-1/checkpoints/x": ""}}, "the allowed files of a run are"),
        ({"runs": {".hidden/spec.json": "{}"}}, "the allowed files of a run are"),
        ({"packages": [1]}, "packages must be"),
        ({"packages": {str(number): "" for number in range(3001)}}, "packages must be"),
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


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"\xff" * 600, b'{"slug": "a"}'])
def test_what_is_no_bundle_is_refused(body):
    with pytest.raises(UsageError, match=r"not a (publish request|bundle of files)"):
        snapshot.read(io.BytesIO(body))


@pytest.mark.parametrize("asked", ["", "[]", "null", "{}", '{"slug": "a"}'])
def test_what_is_no_request_is_refused(asked):
    with pytest.raises(UsageError, match="not a publish request"):
        snapshot.read(bundle(**{"request.json": asked}))


def test_a_request_without_its_notebook_is_refused():
    asked = json.dumps({"slug": "a", "name": "a.ipynb"})
    with pytest.raises(UsageError, match=r"not a publish request \(KeyError: 'a.ipynb'\)"):
        snapshot.read(bundle(**{"request.json": asked}))


def link(kind):
    member = tarfile.TarInfo("files/link")
    member.type, member.linkname = kind, "/etc/passwd"
    return member


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_a_bundle_holds_files_only(tmp_path, kind):
    with pytest.raises(UsageError, match="'files/link' is not a regular file"):
        unpack(bundle(**{"files/link": link(kind)}), tmp_path, 10, 1000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "files/../../x", "a\\b"])
def test_a_bundle_stays_in_its_folder(tmp_path, name):
    with pytest.raises(UsageError, match="only files in the notebook's folder"):
        unpack(bundle(**{name: "x"}), tmp_path / "in", 10, 1000)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_claims_more_than_it_may_have_is_refused_before_it_is_read(tmp_path):
    huge = tarfile.TarInfo("huge")
    huge.size = 2**40
    for body in (io.BytesIO(huge.tobuf()), bundle(a="", b="", c=""), bundle(a="x" * 1001)):
        with pytest.raises(UsageError, match="more files or bytes than an app may have"):
            unpack(body, tmp_path, 2, 1000)


def test_what_was_packed_is_unpacked(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x").write_text("1")
    (tmp_path / "y").write_text("2")
    (tmp_path / "z").write_text("3")
    body = io.BytesIO()
    pack(body, tmp_path, ["a", "y"])
    body.seek(0)
    unpack(body, tmp_path / "new", 2, 1000)
    assert (tmp_path / "new" / "a" / "b" / "x").read_text() == "1"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a", "y"]


def test_runs_come_along(tmp_path):
    wanted = snapshot.read(request(runs=RUN, python="3.11.2", packages={"torch": "2.13"}, flavor="small"))
    assert wanted.run_names == ("fit-1",)
    assert (wanted.python, wanted.packages, wanted.flavor) == ("3.11.2", {"torch": "2.13"}, "small")
    wanted.write(tmp_path)
    assert sorted(path.name for path in (tmp_path / "runs" / "fit-1").iterdir()) == [
        "record.json",
        "result",
        "spec.json",
    ]


@pytest.mark.parametrize(
    ("limit", "sent"),
    [("MOST_BYTES", {"files": {"big": "x" * 41}}), ("MOST_RUN_BYTES", {"runs": RUN | {"b/result": "x" * 41}})],
)
def test_too_much_is_refused(monkeypatch, limit, sent):
    monkeypatch.setattr(snapshot, limit, 40)
    sent.get("runs", {}).update({"b/spec.json": "", "b/record.json": ""} if "runs" in sent else {})
    with pytest.raises(UsageError, match="too much for an app"):
        snapshot.read(request(**sent))


def test_too_many_are_refused(monkeypatch):
    monkeypatch.setattr(snapshot, "MOST_FILES", 1)
    with pytest.raises(UsageError, match="too much for an app"):
        snapshot.read(request(files={"a": "", "b": ""}))
