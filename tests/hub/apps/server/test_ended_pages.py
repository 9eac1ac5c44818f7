"""A page that no longer works says so, with a button to go on; an upload within the limit harms no page."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from browser.chromium import Visitor, chromium
from hub.apps.conftest import at_the_terminal, path_of, write
from hub.realhub import GUEST, PERSON

pytestmark = pytest.mark.browser

LIMIT = 50_000_000

CELL = """\
import os
import ipywidgets
from IPython.display import display
tick, seen = ipywidgets.Button(description="Tick"), ipywidgets.Label("ticks: 0")
tick.on_click(lambda _: setattr(seen, "value", f"ticks: {int(seen.value.split()[1]) + 1}"))
crash, upload, got = ipywidgets.Button(description="Crash"), ipywidgets.FileUpload(), ipywidgets.Label("got: 0")
crash.on_click(lambda _: os._exit(1))
upload.observe(lambda change: setattr(got, "value", f"got: {len(change['new'][0]['content'])}"), "value")
display(tick, seen, crash, upload, got)"""


@pytest.fixture(scope="module")
def browser(starts_processes):
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("author")


def publish(hub, folder, slug):
    from cnai.publishing import apps

    with at_the_terminal(hub):
        return apps.publish(write(folder, f"{slug}.ipynb", CELL), share=[GUEST], slug=slug)


@contextmanager
def opened(hub, browser, app):
    visitor = Visitor(browser, hub.url)
    page = visitor.login(GUEST, hub.password(GUEST), path_of(app))
    page.get_by_text("ticks: 0").wait_for()
    yield page
    visitor.context.close()


def press(page, sum_of_ticks):
    page.get_by_role("button", name="Tick").click()
    page.get_by_text(f"ticks: {sum_of_ticks}", exact=True).wait_for()


def assert_ended(page):
    """The page says that it has ended."""
    page.get_by_role("alert").get_by_text("This page has ended").wait_for()


def assert_goes_on(page):
    """The page says that it has ended, and its button leads to one that works."""
    assert_ended(page)
    page.get_by_role("alert").get_by_role("button", name="Reload").click()
    page.get_by_text("ticks: 0").wait_for()
    press(page, 1)
    assert page.get_by_role("alert").count() == 0


def end_kernel(page):
    """End the kernel as for a viewer who has left: its websocket is not closed from here."""
    page.evaluate(
        """async () => {
          const config = JSON.parse(document.getElementById("jupyter-config-data").textContent);
          const form = new FormData();
          form.append("_xsrf", document.cookie.match(/_xsrf=([^;]*)/)[1]);
          await fetch(`${config.baseUrl}voila/api/shutdown/${config.kernelId}`, { method: "POST", body: form });
        }"""
    )


@pytest.fixture(scope="module")
def ticks(hub, folder):
    return publish(hub, folder, "ticks")


def test_a_kernel_that_dies(hub, browser, ticks):
    with opened(hub, browser, ticks) as page:
        page.get_by_role("button", name="Crash").click()
        assert_goes_on(page)


def test_a_kernel_that_was_ended(hub, browser, ticks):
    with opened(hub, browser, ticks) as page:
        end_kernel(page)
        page.get_by_role("button", name="Tick").click()
        assert_goes_on(page)


def test_a_network_that_is_gone_for_a_while(hub, browser, ticks):
    with opened(hub, browser, ticks) as page:
        page.context.set_offline(True)
        page.get_by_role("alert").get_by_text("The connection to this app is lost").wait_for()
        page.context.set_offline(False)
        page.get_by_role("alert").wait_for(state="detached")
        press(page, 1)


def test_uploads_up_to_the_limit(hub, browser, ticks, tmp_path):
    fits, large = tmp_path / "fits", tmp_path / "large"
    fits.write_bytes(bytes(LIMIT))
    large.write_bytes(bytes(LIMIT + 1))
    with opened(hub, browser, ticks) as page:

        def upload(path):
            with page.expect_file_chooser() as chooser:
                page.get_by_role("button", name="Upload").click()
            chooser.value.set_files(path)

        upload(large)
        page.get_by_role("alert").get_by_text("51 MB are too much at once; this app takes up to 50 MB.").wait_for()
        press(page, 1)
        upload(fits)
        page.get_by_text(f"got: {LIMIT}").wait_for()
        assert page.get_by_role("alert").count() == 0
        press(page, 2)


def test_an_app_that_is_updated_stopped_or_unpublished(hub, browser, api, folder):
    from cnai.publishing import apps

    app = publish(hub, folder, "changes")
    with opened(hub, browser, app) as page:
        publish(hub, folder, "changes")
        assert_goes_on(page)
        hub.stop_server(api, "app-changes")
        assert_ended(page)
        page.get_by_role("alert").get_by_role("button", name="Reload").click()
        page.wait_for_load_state()
        assert f"/{PERSON}/" in page.url
    with at_the_terminal(hub):
        apps.publish(folder / "changes.ipynb", share=[GUEST], slug="changes")
    with opened(hub, browser, app) as page:
        with at_the_terminal(hub):
            apps.unpublish("changes")
        assert_ended(page)
