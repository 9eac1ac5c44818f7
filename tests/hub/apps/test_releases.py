"""Releases on disk: the current release stays current, whatever happens to its successor."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnai.errors import HubError
from cnai_hub.apps.releases import (
    KEPT_RELEASES,
    App,
    Release,
    Store,
    owner_of,
    read_app,
    read_release,
    slug_of,
    valid_slug,
)
from cnai_hub.local.app_processes import app_command, app_environment


def publish(store, number, owner="ada", slug="demo", content="x"):
    with store.staging(owner, slug) as stage:
        (stage / "files").mkdir()
        (stage / "files" / "a.ipynb").write_text(content)
        app = App(owner=owner, slug=slug, title="Demo", created=1.0, published=float(number), current=number)
        store.commit(stage, app, Release(number=number, notebook="a.ipynb", author=owner, created=float(number)))
    return app


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "apps")


def test_what_was_committed_is_read_back(store):
    app = publish(store, 1)
    assert store.get("ada", "demo") == app
    folder = store.folder("ada", "demo")
    assert read_release(folder, 1) == Release(number=1, notebook="a.ipynb", author="ada", created=1.0)
    assert owner_of(folder) == "ada"


def test_a_release_that_fails_leaves_the_old_one(store):
    app = publish(store, 1)
    with pytest.raises(RuntimeError), store.staging("ada", "demo") as stage:
        (stage / "files").mkdir()
        raise RuntimeError
    assert store.get("ada", "demo") == app
    assert [path.name for path in (store.folder("ada", "demo") / "releases").iterdir()] == ["1"]


def test_a_first_release_that_fails_leaves_nothing(store):
    with pytest.raises(RuntimeError), store.staging("ada", "demo"):
        raise RuntimeError
    assert not store.folder("ada", "demo").exists()
    assert store.apps() == []


def test_what_a_killed_publisher_left_is_swept_away(store):
    publish(store, 1)
    left_over = store.folder("ada", "demo") / "releases" / ".new-1-1"
    left_over.mkdir()
    (left_over / "file").write_text("half")
    publish(store, 2)
    assert not left_over.exists()


def test_the_last_releases_are_kept(store):
    for number in range(1, KEPT_RELEASES + 3):
        assert store.next_number("ada", "demo") == number
        publish(store, number)
    kept = {int(path.name) for path in (store.folder("ada", "demo") / "releases").iterdir()}
    assert kept == set(range(3, KEPT_RELEASES + 3))


def test_a_release_is_read_only_and_can_be_removed(store):
    publish(store, 1)
    file = store.folder("ada", "demo") / "releases" / "1" / "files" / "a.ipynb"
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o500
    store.remove("ada", "demo")
    assert not store.folder("ada", "demo").exists()


def test_newest_apps_come_first(store):
    publish(store, 1, slug="old")
    publish(store, 2, slug="new", owner="bob")
    assert [app.slug for app in store.apps()] == ["new", "old"]


def test_the_command_is_fixed_by_name_and_store(tmp_path, monkeypatch):
    monkeypatch.setenv("CNAI_HOME", str(tmp_path))
    publish(Store(tmp_path / "apps"), 1)
    command = app_command("app-demo", "ada")
    assert command is not None
    assert command[1:] == ["-m", "cnai_hub.apps.server", str(tmp_path / "apps" / "ada" / "demo")]
    assert app_environment("app-demo", "ada")["CNAI_HOME"] == str(tmp_path)
    for name, owner in [("app-demo", "bob"), ("app-other", "ada"), ("demo", "ada"), ("", "ada"), ("app-..", "ada")]:
        assert app_command(name, owner) is None, (name, owner)
    assert app_environment("", "ada") == {}


@given(st.text(max_size=40))
def test_a_slug_makes_a_name_that_the_hub_accepts(slug):
    name = f"app-{slug}"
    # What JupyterHub 6 allows: starts with a letter, lowercase letters, digits, single hyphens, at most 30 characters.
    allowed = len(name) <= 30 and re.fullmatch(r"[a-z](?:[a-z0-9]|-(?=[a-z0-9]))*", name) is not None
    assert valid_slug(slug) == allowed
    assert (slug_of(name) == slug) == allowed


@given(st.text(min_size=1, max_size=30))
def test_no_owner_leads_out_of_the_store(owner):
    store = Store(Path("/store"))
    folder = store.folder(owner, "demo")
    assert folder.parent.parent == Path("/store")
    assert folder.parent.name not in {".", "..", ""}
    assert owner_of(folder) == owner


def test_a_folder_without_a_record_is_no_app(tmp_path):
    assert read_app(tmp_path) is None
    assert read_release(tmp_path, 1) is None


def test_a_release_says_its_kind(store):
    publish(store, 1)
    file = store.folder("ada", "demo") / "releases" / "1" / "release.json"
    assert json.loads(file.read_text())["kind"] == "notebook"
    assert read_release(store.folder("ada", "demo"), 1).kind == "notebook"


@pytest.fixture
def record(store):
    """Change the record of an app or release on disk."""
    publish(store, 1)

    def change(name, **changes):
        file = store.folder("ada", "demo") / name
        file.chmod(0o600)
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def test_what_a_newer_version_wrote_beside_is_ignored(store, record):
    app, release = store.get("ada", "demo"), read_release(store.folder("ada", "demo"), 1)
    record("app.json", banner={"color": "red"})
    record("releases/1/release.json", model="x")
    assert (store.get("ada", "demo"), read_release(store.folder("ada", "demo"), 1)) == (app, release)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"title": 5}, "title must be text; given: 5"),
        ({"share": "guest"}, "share must be a list; given: 'guest'"),
        ({"current": "1"}, "current must be a whole number; given: '1'"),
    ],
)
def test_a_damaged_app_says_what_and_what_to_do(store, record, changes, why):
    record("app.json", **changes)
    with pytest.raises(HubError, match=rf"demo/app\.json is damaged: {re.escape(why)}; publish the notebook again"):
        store.get("ada", "demo")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"packages": ["torch"]}, "packages must be a table; given: ['torch']"),
        ({"kind": "model"}, "kind must be notebook; given: 'model'"),
    ],
)
def test_a_damaged_release_says_what_and_what_to_do(store, record, changes, why):
    record("releases/1/release.json", **changes)
    with pytest.raises(HubError, match=rf"release\.json is damaged: {re.escape(why)}; publish the notebook again"):
        read_release(store.folder("ada", "demo"), 1)


def test_a_damaged_app_hides_no_other(store, record):
    publish(store, 2, slug="whole")
    record("app.json", title=5)
    assert [app.slug for app in store.apps()] == ["whole"]


def test_a_damaged_app_can_be_published_again(store, record):
    record("app.json", title=5)
    app = publish(store, store.next_number("ada", "demo"))
    assert store.get("ada", "demo") == app
