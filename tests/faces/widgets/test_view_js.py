"""The page's half of the live view, in a real browser, with a model as anywidget gives it."""

import json

import pytest

from browser.chromium import chromium
from cnai.faces.widgets.curve import curve
from cnai.faces.widgets.drawing import draw
from cnai.faces.widgets.page import source

pytestmark = pytest.mark.browser

MODEL = """
(state) => {
  const heard = {};
  window.sent = [];
  window.model = {
    get: (name) => state[name],
    on: (name, callback) => ((heard[name] ??= []).push(callback)),
    off: (name, callback) => (heard[name] = heard[name].filter((other) => other !== callback)),
    send: (message) => window.sent.push(message),
    update: (fresh) => {
      Object.assign(state, fresh);
      for (const name of Object.keys(fresh)) for (const callback of heard[`change:${name}`] ?? []) callback();
    },
    listeners: () => Object.values(heard).flat().length,
  };
}
"""
STATE = {
    "head": "<strong>fit</strong> <span class='cnai-state cnai-running'>RUNNING</span>",
    "error": "",
    "charts": "",
    "log": "",
    "notice": "",
    "clock": {"seconds": 59.2, "running": True},
    "controls": {"pause": True, "resume": False, "ranks": 2},
}


@pytest.fixture(scope="module")
def browser(starts_processes):
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 800, "height": 700})
    page.clock.install()
    page.set_content("<div id=place style='font-size: 13px'></div>")
    page.add_style_tag(content=source("view.css"))
    page.evaluate(MODEL, STATE)
    module = json.dumps(source("hover.js") + source("view.js"))
    page.evaluate(
        "async (code) => { const url = URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));"
        "const { default: view } = await import(url);"
        "window.leave = view.render({ model: window.model, el: document.getElementById('place') }); }",
        json.loads(module),
    )
    yield page
    page.close()


def update(page, **fresh):
    page.evaluate("(fresh) => window.model.update(fresh)", fresh)


def drawn(steps):
    drawing = draw("loss", curve(range(1, steps + 1), [1 / step for step in range(1, steps + 1)]), "#123456")
    return f"<figure class='cnai-chart' data-points='{drawing.points}'>{drawing.svg}</figure>"


def test_the_clock_goes_on_by_itself_until_the_run_ends(page):
    clock = page.locator(".cnai-clock")
    assert clock.inner_text() == "0:59"
    page.clock.run_for(3000)
    assert clock.inner_text() == "1:02"
    update(page, clock={"seconds": 3725.9, "running": False})
    page.clock.run_for(60_000)
    assert clock.inner_text() == "1:02:05"


def test_a_kernel_that_says_nothing_is_noticed_and_heard_again(page):
    notice = page.get_by_text("%cnai attach shows it again")
    page.clock.run_for(19_000)
    assert not notice.is_visible()
    page.clock.run_for(3000)
    assert notice.is_visible()
    assert not page.get_by_role("button", name="Stop").is_visible()
    update(page, clock={"seconds": 90, "running": True})
    assert not notice.is_visible()
    assert page.get_by_role("button", name="Stop").is_visible()


def test_buttons_are_those_that_make_sense(page):
    def buttons():
        return [button.inner_text() for button in page.get_by_role("button").all()]

    assert buttons() == ["Pause", "\u2212", "+", "Stop"]
    for title in ("one rank more", "one rank fewer", "stop the run"):
        page.get_by_title(title).click()
    assert page.evaluate("window.sent") == [{"do": "scale", "ranks": 3}, {"do": "scale", "ranks": 1}, {"do": "stop"}]
    update(page, controls={"pause": False, "resume": True, "ranks": 1})
    assert buttons() == ["Resume", "\u2212", "+", "Stop"]
    assert page.get_by_title("one rank fewer").is_disabled()
    update(page, controls={})
    assert buttons() == []


def test_the_log_stays_at_its_end_unless_somebody_scrolls_up(page):
    def position():
        return page.evaluate("(e => [e.scrollTop, e.scrollHeight - e.clientHeight])(document.querySelector('pre'))")

    def lines(count):
        update(page, log="<pre>" + "\n".join(f"line {at}" for at in range(count)) + "</pre>")
        page.clock.run_for(100)

    lines(100)
    lines(200)
    now, end = position()
    assert now == pytest.approx(end, abs=2)
    page.evaluate("document.querySelector('pre').scrollTop = 40")
    page.locator("pre").dispatch_event("scroll")
    lines(300)
    assert position()[0] == 40


def test_the_readout_stays_below_the_pointer_while_curves_move(page):
    update(page, charts=drawn(10))
    page.locator(".cnai-chart").hover()
    label = page.locator(".cnai-readout b")
    assert label.inner_text() == "step 5: 0.2"
    update(page, charts=drawn(1000))
    assert label.inner_text().startswith("step 4"), "in the middle of 1,000 now"
    assert " to " in label.inner_text(), "many reports as one point say between which values they lie"
    page.mouse.move(0, 690)
    assert label.count() == 0


def test_leaving_takes_all_listeners_and_the_clock_away(page):
    assert page.evaluate("window.model.listeners()") == len(STATE)
    page.evaluate("window.leave()")
    assert page.evaluate("window.model.listeners()") == 0
    page.clock.run_for(5000)
    assert page.locator(".cnai-clock").inner_text() == "0:59"


def test_nothing_is_asked_from_elsewhere(page):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    update(page, charts=drawn(5), log="<pre>x</pre>", error="<div class='cnai-error'>no</div>")
    page.clock.run_for(1000)
    assert [url for url in asked if not url.startswith(("blob:", "data:"))] == []
