"""The product's main road in a real browser: log in, spawn, train, lose the kernel, attach, publish, open as guest."""

from __future__ import annotations

import os
import re
import signal

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from browser.chromium import Visitor, chromium
from hub.realhub import GUEST, PERSON, RealHub
from run.waiting import until

pytestmark = pytest.mark.browser

SLOW_RUN = """\
def slow(steps=400):
    import time

    import cnai

    ctx = cnai.context()
    for step in ctx.loop(steps):
        ctx.report(loss=1 / step)
        time.sleep(0.02)
    return ctx.step"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory, starts_processes):
    hub = RealHub(tmp_path_factory.mktemp("journey") / "cnai")
    try:
        yield hub.start()
    finally:
        hub.stop()


@pytest.fixture(scope="module")
def browser(starts_processes):
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def person(hub, browser):
    """The person, logged in, with a server that was chosen on the spawn page."""
    visitor = Visitor(browser, hub.url)
    page = visitor.login(PERSON, hub.password(PERSON), "/hub/spawn")
    page.get_by_label("Small").check()
    page.get_by_role("button", name="Start").click()
    page.wait_for_url(re.compile("/lab"))
    yield visitor
    assert visitor.outside == []


def write_notebook(hub, name, *cells):
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(notebook, hub.home / "notebooks" / name)


def open_notebook(hub, person, name):
    page = person.page
    page.goto(f"{hub.url}/user/{PERSON}/lab/tree/{name}?reset")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.get_by_text("| Idle").wait_for()
    return page


def run_all(page):
    page.locator("#jp-MainMenu").get_by_text("Run", exact=True).click()
    page.locator("li[data-command='runmenu:run-all']").click()


def run_cell(page, number):
    """Run one cell and stay on it."""
    page.locator(".jp-Notebook .jp-CodeCell .cm-content").nth(number).click()
    page.keyboard.press("Control+Enter")


def shown_step(view):
    found = re.search(r"step ([\d,]+)", view.inner_text())
    return int(found[1].replace(",", "")) if found else 0


def test_first_notebook_trains_and_the_curve_moves(hub, person):
    page = open_notebook(hub, person, "01-first-run.ipynb")
    run_all(page)
    view = page.locator(".cnai-run").first
    view.wait_for()
    view.scroll_into_view_if_needed()
    curves = set()

    def ended():
        curves.add(view.locator(".cnai-charts").inner_html())
        return "SUCCEEDED" in view.inner_text()

    until(ended, "the run has ended")
    assert len(curves) > 2
    assert shown_step(view) == 230
    page.get_by_text(re.compile(r"^9\d\.\d% of 360 digits")).wait_for()
    canvas = page.locator("canvas.drawing-pad")
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    page.get_by_text(re.compile(r"I see a \d")).wait_for()


def test_killed_kernel_attach_shows_all_of_it(hub, person):
    write_notebook(
        hub,
        "kill.ipynb",
        "%load_ext cnai",
        f"import os\n{SLOW_RUN}\nprint('kernel', os.getpid())",
        "%cnai train slow --ranks 2",
        "%load_ext cnai",
        "%cnai attach",
    )
    page = open_notebook(hub, person, "kill.ipynb")
    for number in range(3):
        run_cell(page, number)
    first = page.locator(".cnai-run").first
    first.get_by_text("RUNNING").wait_for()
    kernel = int(page.get_by_text(re.compile(r"^kernel \d+")).inner_text().split()[1])
    until(lambda: shown_step(first) >= 20, "step 20")
    os.kill(kernel, signal.SIGKILL)
    page.get_by_text(re.compile("appears to have died|has died")).first.wait_for()
    page.get_by_role("button", name=re.compile("^(Ok|OK)$")).click()
    page.get_by_text("| Idle").wait_for()
    for number in (3, 4):
        run_cell(page, number)
    second = page.locator(".cnai-run").last
    second.get_by_text("SUCCEEDED").wait_for()
    assert shown_step(second) == 400
    assert "generation" not in second.inner_text(), "the run must not have noticed"


def test_buttons_of_the_view(hub, person):
    write_notebook(hub, "buttons.ipynb", f"%load_ext cnai\n{SLOW_RUN}", "%cnai train slow steps=3000 --ranks 2")
    page = open_notebook(hub, person, "buttons.ipynb")
    run_all(page)
    view = page.locator(".cnai-run").first
    view.get_by_text("RUNNING").wait_for()
    until(lambda: shown_step(view) >= 10, "step 10")
    view.get_by_role("button", name="Pause").click()
    view.get_by_text("PAUSED").wait_for()
    view.get_by_role("button", name="Resume").click()
    view.get_by_text("generation 1").wait_for()
    view.get_by_text("RUNNING").wait_for()
    view.get_by_role("button", name="Stop").click()
    view.get_by_text("CANCELLED").wait_for()


def test_published_app_for_guest(hub, person, browser):
    write_notebook(
        hub, "publish.ipynb", "%load_ext cnai", "%cnai publish 01-first-run.ipynb --slug digits --share guest"
    )
    page = open_notebook(hub, person, "publish.ipynb")
    run_all(page)
    page.locator(".jp-OutputArea-output").get_by_text("digits").first.wait_for()

    guest = Visitor(browser, hub.url)
    page = guest.login(GUEST, hub.password(GUEST), "/services/apps/")
    page.get_by_text("Read handwritten digits").wait_for()
    page.get_by_role("link", name=re.compile("Open")).or_(page.get_by_role("button", name=re.compile("Open"))).click()
    answer = page.get_by_text(re.compile(r"I see a \d"))
    answer.wait_for()
    assert "%load_ext" not in page.content()
    before = page.locator(".widget-html", has_text="I see a").inner_html()
    handle = page.locator(".noUi-handle").first
    handle.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "before => [...document.querySelectorAll('.widget-html')].some(e => e.innerText.includes('I see a')) &&"
        " ![...document.querySelectorAll('.widget-html')].some(e => e.innerHTML === before)",
        arg=before,
    )
    assert guest.outside == []


def test_guest_cannot_spawn(hub, browser):
    guest = Visitor(browser, hub.url)
    page = guest.login(GUEST, hub.password(GUEST), "/hub/spawn")
    assert page.locator("button", has_text="Start").count() == 0


def test_stop(hub, person):
    page = person.page
    page.goto(f"{hub.url}/hub/home", wait_until="networkidle")  # its scripts load each other, and then hear a click
    page.get_by_role("button", name=re.compile("Stop")).or_(
        page.get_by_role("link", name=re.compile("Stop"))
    ).first.click()
    page.get_by_role("link", name=re.compile("Start")).or_(
        page.get_by_role("button", name=re.compile("Start"))
    ).first.wait_for()
