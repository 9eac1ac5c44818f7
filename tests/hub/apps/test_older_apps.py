"""The hub still serves apps that an older cnai published; `tests/older` has a real one and the run that it shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cnai_hub.apps.releases import App, Release, Store, read_release
from hub.realhub import GUEST, RealHub, until

OLDER = Path(__file__).resolve().parents[2] / "older"
AUTHOR, SLUG = "root", "01-first-run"


@pytest.fixture
def older_home(tmp_path):
    """A copy of the home, as its author's hub left it."""
    for folder in ("apps", "runs"):
        shutil.copytree(OLDER / folder, tmp_path / "cnai" / folder)
    return tmp_path / "cnai"


@pytest.fixture
def authors_hub(older_home, starts_processes):
    hub = RealHub(older_home, person=AUTHOR)
    try:
        yield hub.start()
    finally:
        hub.stop()


def test_the_store_reads_app_and_release(older_home):
    store = Store(older_home / "apps")
    (app,) = store.apps()
    assert app == App(
        owner=AUTHOR,
        slug=SLUG,
        title="Read handwritten digits",
        created=1795656680.5379388,
        published=1795656680.5379388,
        current=1,
        share=(GUEST,),
        viewers=(GUEST,),
    )
    release = read_release(store.folder(AUTHOR, SLUG), app.current)
    assert isinstance(release, Release)
    assert (release.number, release.notebook, release.author) == (1, "01-first-run.ipynb", AUTHOR)
    assert release.files == ("01-first-run.ipynb", "drawing.py")
    assert len(release.packages) == 10


def test_its_viewer_opens_it_and_sees_the_run_that_it_was_published_with(authors_hub):
    before = {path.name for path in (authors_hub.home / "runs").iterdir()}
    guest = authors_hub.login(GUEST)
    opened = f"/services/apps/open/{AUTHOR}/{SLUG}"
    assert "Read handwritten digits" in guest.get(opened).text
    api = authors_hub.api()
    answer = authors_hub.spawn(api, f"app-{SLUG}")
    assert answer.status_code < 400, answer.text
    # The apps service shares the app with its viewers again, because this hub doesn't know the old shares.
    shares = f"shares/{AUTHOR}/app-{SLUG}"
    until(lambda: api.get(shares).json()["items"], "the app is shared with its viewers")
    page = guest.get(f"/user/{AUTHOR}/app-{SLUG}/")
    assert page.status_code == 200, page.text[-2000:]
    assert "of 360 digits that it never saw are read correctly" in page.text
    assert "Publish it" in page.text
    assert {path.name for path in (authors_hub.home / "runs").iterdir()} == before  # it trained nothing again
