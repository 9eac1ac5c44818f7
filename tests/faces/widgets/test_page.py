"""What a view says of a run, from runs on disk whose events were written as the engine writes them."""

import re
import time

import pytest

import cnai
from cnai.engine.records import Record
from cnai.engine.store import Journal, Store
from cnai.events import Event, Kind, State
from cnai.faces.text import headline, latest, summary
from cnai.faces.widgets.page import MOST_CHARTS, page, saved
from cnai.paths import store_root
from cnai.spec import RunSpec, Target


@pytest.fixture
def write(home):
    """Return a function that puts a run with these events into the store."""

    def write(*events, name="fit"):
        spec = RunSpec(target=Target(kind="function", name=name))
        folder = Store(store_root()).create(spec, Record(who="me"), b"", b"")
        journal = Journal(folder)
        for kind, payload, more in events:
            event = Event(run_id=folder.run_id, generation=0, kind=kind, time=time.time(), payload=payload, **more)
            journal.append(event.to_json() + "\n")
        journal.close()
        (run,) = [run for run in cnai.runs() if run.id == folder.run_id]
        return run

    return write


def state(name, reason=""):
    return Kind.STATE, {"state": State(name), "reason": reason}, {}


def metric(step=None, rank=0, **values):
    return Kind.METRIC, values, {"step": step, "rank": rank}


def log(text, rank=0):
    return Kind.LOG, {"text": text}, {"rank": rank}


BEGUN = (Kind.GENERATION, {"ranks": 2, "from_step": 0}, {})


def plain(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).strip()


def test_a_run_that_waits_has_no_curves_yet(write):
    pieces = page(write())
    assert plain(pieces.head) == "fit PENDING 1 rank"
    assert (pieces.error, pieces.charts, pieces.log) == ("", "", "")


def test_a_run_that_goes_on(write):
    run = write(BEGUN, state("RUNNING"), metric(1, loss=0.5), metric(1200, loss=0.25), log("hello\nthere\n", 1))
    pieces = page(run)
    assert plain(pieces.head) == "fit RUNNING 2 ranks · step 1,200"
    assert pieces.charts.count("<svg") == 1
    assert plain(pieces.log) == "[1] hello [1] there"
    assert headline(run).startswith(f"{run.id} · RUNNING · 2 ranks · step 1200 · 0:0")
    assert latest(run) == "loss 0.25"


def test_a_failed_run_says_why_first(write):
    told = {
        "summary": "rank 1: ValueError: <too hot>",
        "traceback": 'File "Cell [3]", line 2\n',
        "hint": "cool it",
        "final": True,
    }
    run = write(BEGUN, (Kind.DIAGNOSIS, told, {"rank": 1}), state("FAILED", "rank 1: ValueError: <too hot>"))
    assert "rank 1: ValueError: &lt;too hot&gt;" in page(run).error
    assert "cool it" in page(run).error
    assert "Cell [3]" in page(run).error
    assert plain(page(run).head) == "fit FAILED 2 ranks", "the reason isn't said twice"
    assert page(run).error in saved(run)["text/html"]
    assert "rank 1: ValueError: <too hot>" in summary(run)


def test_why_a_run_is_in_its_state(write):
    run = write(BEGUN, state("RESTARTING", "rank 1 was killed by SIGKILL"))
    assert plain(page(run).head) == "fit RESTARTING 2 ranks rank 1 was killed by SIGKILL"


def test_many_metrics_and_long_logs_are_bounded(write):
    names = {f"metric_{at}": float(at) for at in range(40)}
    lines = [log(f"line {at} {'x' * 100}\n") for at in range(1000)]
    pieces = page(write(BEGUN, metric(1, **names), *lines))
    assert pieces.charts.count("<svg") == MOST_CHARTS
    assert "and 28 more in run.metrics" in pieces.charts
    assert len(pieces.log) < 13_000
    assert "line 999" in pieces.log


def test_what_people_print_and_name_is_text_not_html(write):
    run = write(BEGUN, metric(1, **{"<img src=x>": 1.0}), log("<script>alert(1)</script>\n"), name="a-b")
    for html in (*vars_of(page(run)), saved(run)["text/html"].replace("<script>{", "")):
        assert "<script>" not in html.replace("<script>{", "")
        assert "<img src=x" not in html


def vars_of(pieces):
    return [getattr(pieces, name) for name in pieces.__slots__]


def test_what_is_saved_needs_no_program_and_no_network(write):
    bundle = saved(write(BEGUN, state("RUNNING"), metric(1, loss=0.5), metric(2, loss=0.25), state("SUCCEEDED")))
    assert set(bundle) == {"text/plain", "text/html", "image/svg+xml"}
    assert '<img alt="loss"' in bundle["text/html"]
    assert not re.findall(r"(?:src|href)=\"(?!data:)[^\"]*", bundle["text/html"])
    assert re.search(r"loss +█▁ 0\.25$", bundle["text/plain"])
    assert "SUCCEEDED" in bundle["image/svg+xml"]


def test_a_run_without_metrics_has_no_picture(write):
    assert set(saved(write(BEGUN, state("SUCCEEDED")))) == {"text/plain", "text/html"}
