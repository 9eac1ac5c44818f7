import time
from multiprocessing import Pipe
from pathlib import Path

import pytest

from cnai.engine import link as link_module
from cnai.engine.link import Link
from cnai.engine.messages import Abilities, Assignment, Events, Stop
from cnai.events import Checkpoint, Event, Kind, Log, Metrics
from cnai.spec import Interval

ASSIGNMENT = Assignment(
    run_id="r",
    generation=1,
    run_dir=Path("/nowhere"),
    resume_from=None,
    checkpoint_every=Interval(steps=1),
    timeout_seconds=1.0,
    first_world_size=1,
)


@pytest.fixture
def line():
    node, rank = Pipe()
    link = Link(ASSIGNMENT, 2, rank)
    yield link, node
    link.close()
    node.close()


def events(node):
    found = []
    while node.poll(0.5):
        message = node.recv()
        if isinstance(message.content, Events):
            found += [Event.from_json(text) for text in message.content.text.splitlines()]
    return found


def test_events_come_in_order_with_rank_and_generation(line):
    link, node = line
    for step in range(100):
        link.emit(Metrics({"loss": float(step)}), step=step)
    link.emit(Checkpoint(path="p"), step=99)
    link.close()
    found = events(node)
    assert [event.step for event in found if event.kind is Kind.METRIC] == list(range(100))
    assert found[-1].kind is Kind.CHECKPOINT
    assert {(event.rank, event.generation, event.run_id) for event in found} == {(2, 1, "r")}


def test_reporting_never_waits_and_says_what_it_dropped(monkeypatch):
    monkeypatch.setattr(link_module, "MAX_WAITING_METRICS", 10)
    monkeypatch.setattr(link_module, "BATCH_SECONDS", 3600)
    node, rank = Pipe()
    link = Link(ASSIGNMENT, 0, rank)
    for step in range(25):
        link.emit(Metrics({}), step=step)
    link.emit(Log(text="x"))
    link.close()
    found = events(node)
    assert [event.step for event in found if event.kind is Kind.METRIC] == list(range(15, 25))
    assert [event.payload for event in found if event.kind is Kind.LOG] == [{"text": "x"}]
    assert ["15 reports dropped" in event.payload["summary"] for event in found if event.kind is Kind.DIAGNOSIS] == [
        True
    ]
    node.close()


def test_a_wish_to_end_arrives(line):
    link, node = line
    assert not link.stopping.is_set()
    node.send(Stop())
    assert link.stopping.wait(30)


def test_a_node_that_is_gone_raises_nothing():
    node, rank = Pipe()
    link = Link(ASSIGNMENT, 0, rank)
    node.close()
    link.emit(Metrics({"a": 1.0}))
    time.sleep(0.2)
    link.announce(Abilities(graceful=True))
    link.close()
