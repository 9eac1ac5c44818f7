"""An app in a real browser: guest logs in, finds it, and moves a slider; the page makes no requests to other sites."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from browser.chromium import Visitor, chromium
from cnai_hub.apps.releases import Store
from hub.apps.conftest import path_of
from hub.realhub import GUEST, PERSON, until

pytestmark = pytest.mark.browser

# MathJax 2 detects a missing font by loading `about:blank` as one; JupyterLab's modules warn about their versions.
HARMLESS = re.compile(r"about:blank|net::ERR_FAILED|[Uu]nsatisfied version|No satisfying version")


@pytest.fixture(scope="module")
def browser(starts_processes):
    with chromium() as browser:
        yield browser


class Watched(Visitor):
    """A browser page that records errors and messages over websockets."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.wrong, self.received = [], []
        self.page.on("console", lambda said: self._complain(said.text) if said.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self._complain(str(error)))
        self.page.on("response", lambda got: self._complain(f"{got.status} {got.url}") if got.status >= 400 else None)
        self.page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: self.received.append(frame)))

    def heard(self, text):
        """Tell whether a websocket has received this text so far."""
        self.page.wait_for_timeout(100)  # Playwright delivers events only during calls
        return any(text in str(frame) for frame in self.received)

    def _complain(self, text):
        if not HARMLESS.search(text):
            self.wrong.append(text)


def test_an_address_with_parameters_starts_a_stopped_app_and_keeps_them(hub, app, api, browser):
    assert api.delete(f"users/{PERSON}/servers/app-squares").status_code in (202, 204)
    until(lambda: not hub.server(api, "app-squares").get("ready"), "the app has stopped")
    opened = f"{app.url.removeprefix(hub.url)}?name=ada&x="
    page = Visitor(browser, hub.url).login(GUEST, hub.password(GUEST), quote(opened))
    page.wait_for_url(f"**{path_of(app)}?name=ada&x=")
    page.get_by_text("squared: 0").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_guest_finds_the_app_and_moves_its_slider(hub, app, browser, scheme):
    visitor = Watched(browser, hub.url, color_scheme=scheme)
    page = visitor.login(GUEST, hub.password(GUEST), "/services/apps/")
    page.get_by_role("region", name=app.title).get_by_role("button", name="Open").click()
    page.wait_for_url(f"**{path_of(app)}")
    page.get_by_text("squared: 0").wait_for()
    assert page.locator("h1").all_text_contents() == [app.title]  # once, in the header
    assert page.locator("html").get_attribute("data-theme") == scheme

    page.locator(".noUi-handle").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.get_by_text("squared: 9").wait_for()
    page.get_by_role("button", name="count 0").click()
    page.get_by_text("seen 1").wait_for()
    page.locator(".MathJax, .MathJax_Display").first.wait_for()

    assert visitor.outside == []
    assert visitor.wrong == []
    visitor.context.close()


def test_a_viewer_sees_no_traceback(hub, app, browser):
    visitor = Watched(browser, hub.url)
    page = visitor.login(GUEST, hub.password(GUEST), path_of(app))
    page.get_by_role("button", name="Fail").click()
    until(lambda: visitor.heard("Something went wrong in this app"), "the error has arrived")
    assert not visitor.heard("a-detail-of-the-author")
    visitor.context.close()


def test_a_closed_page_ends_its_kernel(hub, app, browser, guest):
    visitor = Watched(browser, hub.url)
    page = visitor.login(GUEST, hub.password(GUEST), path_of(app))
    page.get_by_text("squared: 0").wait_for()
    kernel = page.evaluate("JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId")
    guest.get(path_of(app))  # logs in guest's other session to the app
    assert guest.get(f"{path_of(app)}api/kernels/{kernel}").status_code == 200
    page.goto(f"{hub.url}/services/apps/")
    until(lambda: guest.get(f"{path_of(app)}api/kernels/{kernel}").status_code == 404, "the kernel has ended")
    visitor.context.close()


def test_a_stopped_app_starts_and_opens(hub, app, browser, api):
    assert api.delete(f"users/{PERSON}/servers/{'app-squares'}").status_code in (202, 204)
    until(lambda: not hub.server(api, "app-squares"), "the app has stopped")
    visitor = Watched(browser, hub.url)
    page = visitor.login(GUEST, hub.password(GUEST), f"/services/apps/open/{PERSON}/squares")
    page.get_by_text("Starting …").wait_for()
    page.wait_for_url(f"**{path_of(app)}")
    page.get_by_text("squared: 0").wait_for()
    assert visitor.wrong == []
    visitor.context.close()


@pytest.mark.parametrize(
    ("name", "told"), [(GUEST, r"start\. Ask its author\.$"), (PERSON, r"start: .*exited while it was starting")]
)
def test_an_app_that_does_not_start_says_so(hub, terminal, browser, api, tmp_path, name, told):
    from cnai.publishing import apps
    from hub.apps.conftest import write

    apps.publish(write(tmp_path, "breaks.ipynb", "1"), title="Breaks", share=[GUEST])
    hub.stop_server(api, "app-breaks")
    record = Store(hub.home / "apps").folder(PERSON, "breaks") / "releases" / "1" / "release.json"
    record.parent.chmod(0o700)
    record.rename(record.with_name("lost.json"))
    visitor = Watched(browser, hub.url)
    page = visitor.login(name, hub.password(name), "/services/apps/")
    row = page.get_by_role("region", name="Breaks")
    row.get_by_role("button", name="Open").click()
    row.get_by_role("status").get_by_text(re.compile(f"^The app did not {told}")).wait_for()
    apps.unpublish("breaks")
    visitor.context.close()


def test_an_author_unpublishes(hub, terminal, browser, tmp_path):
    from cnai.publishing import apps
    from hub.apps.conftest import write

    apps.publish(write(tmp_path, "short-lived.ipynb", "1"), title="Short lived")
    visitor = Watched(browser, hub.url)
    page = visitor.login(PERSON, hub.password(PERSON), "/services/apps/")
    page.on("dialog", lambda dialog: dialog.accept())
    row = page.get_by_role("region", name="Short lived")
    row.get_by_role("button", name="Unpublish").click()
    row.wait_for(state="detached")
    assert "short-lived" not in [app.slug for app in apps.apps()]
    assert visitor.wrong == []
    visitor.context.close()
