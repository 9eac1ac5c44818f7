"""Pins: an app finds the runs that its notebook found when it was published, and those that it starts itself."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

import cnai
from cnai.engine.records import Fingerprint
from cnai.errors import UnknownName, UsageError
from cnai.run import pins
from cnai.run.reuse import finished
from run.oldruns import finished_run


@pytest.fixture
def store(home, monkeypatch):
    """Three runs: two before the publication at 250, one after it."""
    monkeypatch.setattr(pins, "_started", set())
    for run_id, created in (("digits-1", 100.0), ("digits-2", 200.0), ("digits-3", 300.0)):
        finished_run(home / "runs", run_id, name="digits", created=created, inputs="same")
    return home / "runs"


@pytest.fixture
def app(store, tmp_path, monkeypatch):
    """Make this process the kernel of an app, with these pins."""

    def app(content):
        file = tmp_path / f"release-{len(list(tmp_path.iterdir()))}.json"
        file.write_text(json.dumps({"number": 1, "notebook": "a.ipynb"} | content))
        monkeypatch.setenv("CNAI_RELEASE", str(file))

    return app


SAME = Fingerprint(code="same", arguments="", modules="", conditions="")


@pytest.fixture(autouse=True)
def _same(monkeypatch):
    monkeypatch.setattr("cnai.engine.capture.fingerprint", lambda *_: SAME)


def found():
    captured = SimpleNamespace(payload=b"", code_zip=b"", target=SimpleNamespace(name="fit"))
    same, _ = finished(captured, None)
    assert same is not None
    return [cnai.attach("digits").id, cnai.attach().id, cnai.runs(1)[0].id, same.id]


def test_outside_of_an_app_the_newest_run_is_found(store):
    assert found() == ["digits-3"] * 4


def test_an_app_finds_no_run_that_came_after_it(app):
    app({"pins": {"until": 250.0}})
    assert found() == ["digits-2"] * 4
    assert [run.id for run in cnai.runs()] == ["digits-2", "digits-1"]


def test_an_app_finds_what_its_trial_found(app):
    app(
        {
            "pins": {
                "until": 250.0,
                "names": {"digits": "digits-1", "latest": "digits-1"},
                "inputs": {SAME.key: "digits-1"},
            }
        }
    )
    assert found() == ["digits-1", "digits-1", "digits-2", "digits-1"]
    assert cnai.logs("digits") is not None


def test_a_run_of_the_apps_own_is_found_first(app, store):
    app({"pins": {"until": 250.0, "names": {"digits": "digits-1"}}})
    pins.started(finished_run(store, "digits-4", name="digits", created=400.0))
    assert cnai.attach("digits").id == "digits-4"
    assert [run.id for run in cnai.runs()] == ["digits-4", "digits-2", "digits-1"]


def test_a_run_of_the_publication_that_is_gone_is_named(app):
    app({"pins": {"until": 250.0, "names": {"digits": "digits-0"}}})
    with pytest.raises(UsageError, match="run digits-0, which this app was published with, was removed; publish the"):
        cnai.attach("digits")
    with pytest.raises(UnknownName):
        cnai.attach("digits-3")


def test_a_release_of_an_older_version_has_no_pins(app):
    app({})
    assert found() == ["digits-3"] * 4


def test_a_trial_notes_what_is_looked_up_but_not_what_each_page_starts(store, tmp_path, monkeypatch):
    monkeypatch.setenv("CNAI_RUNS_TAKEN", str(tmp_path / "taken"))
    pins.started("digits-3")
    cnai.attach("digits")
    assert not (tmp_path / "taken").exists()
    pins.note_inputs(SAME.key, "digits-3")  # as with --reuse: the run is the app's, even if the trial trained it
    cnai.attach("digits")
    cnai.logs("digits-2")
    notes = [json.loads(line) for line in (tmp_path / "taken").read_text().splitlines()]
    assert [(note["kind"], note["asked"], note["run"], note["shown"]) for note in notes] == [
        ("inputs", SAME.key, "digits-3", True),
        ("name", "digits", "digits-3", True),
        ("name", "digits-2", "digits-2", False),
    ]
