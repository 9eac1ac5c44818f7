"""Runs outlive the end of their engine: they rest where they are, and `attach` resumes them on the next one."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

import cnai
from cnai.backends.local import client as local
from cnai.backends.local import processes
from cnai.backends.local.process import status_file
from cnai.engine.control.verdicts import STOPPED
from cnai.events import Kind, State
from cnai.run import find
from run.test_survival import at_step, generations, wait_for
from run.training import digits
from run.waiting import until

WAIT = 120
EPOCHS = 12
STEPS = 10 * EPOCHS


def plain():
    """Know no steps, and fail when asked to end."""
    import signal
    import sys
    import time

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    print("on", flush=True)
    time.sleep(1000)


def polite():
    """Return when asked to end, as if all was done."""
    import signal
    import threading

    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    print("on", flush=True)
    asked.wait(1000)


def stubborn():
    """Ignore what asks for an end."""
    import signal
    import time

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("on", flush=True)
    while True:
        time.sleep(1)


def on(run):
    return "on" in run.logs()


def of_engine():
    engine = psutil.Process(local.running().pid)
    return [engine, *engine.children(recursive=True)]


def alive(those):
    return list(filter(processes.alive, those))


def cancel(run):
    run.stop()
    assert run.wait(WAIT).state.final


def test_stop_leaves_all_runs_to_the_next_engine(own_engine):
    undisturbed = cnai.train(digits, (EPOCHS, 0)).result(WAIT)[2]
    paused = cnai.train(digits, (EPOCHS, 0.02), name="paused", grace_seconds=5)
    wait_for(at_step(3), paused)
    paused.pause()
    wait_for(lambda run: run.state is State.PAUSED, paused)
    others = [cnai.train(target, infra_retries=0, grace_seconds=5) for target in (plain, polite, stubborn)]
    for run in others:
        wait_for(on, run)
    slow = cnai.train(digits, (EPOCHS, 1000), name="slow", grace_seconds=5)
    training = cnai.train(digits, (EPOCHS, 0.05), ranks=2, infra_retries=0, grace_seconds=5)
    wait_for(at_step(5), training)
    wait_for(lambda run: "pid" in run.logs(), slow)
    there = of_engine()

    assert local.stop()

    assert alive(there) == []
    assert not local.running()
    with pytest.raises(cnai.CnaiError, match=f"the engine was stopped; `%cnai attach {training.id}`"):
        training.wait(WAIT)
    assert not status_file().exists(), "killed, not stopped"
    for run in (training, slow, *others):
        assert (find(run.id).state, find(run.id).reason) == (State.RESTARTING, STOPPED)
    assert find(paused.id).state is State.PAUSED
    at = find(training.id).step

    again = cnai.attach(training.id)
    step, ranks, weights = again.result(WAIT)
    assert (step, ranks) == (STEPS, 2)
    assert weights == pytest.approx(undisturbed, rel=1e-4)
    assert again.metrics["loss"].steps == list(range(1, STEPS + 1))
    assert [e.payload["from_step"] for e in again.events if e.kind is Kind.GENERATION] == [0, at]
    assert [e.payload["reason"] for e in again.events if e.payload.get("state") == State.RESTARTING] == [
        STOPPED,
        "the engine was stopped and started again",
    ]
    for run in (slow, *others):
        more = cnai.attach(run.id)
        wait_for(lambda run: len(generations(run)) == 2 and run.state is State.RUNNING, more)
        cancel(more)
    back = cnai.attach(paused.id)
    assert back.state is State.PAUSED
    back.resume()
    assert back.result(WAIT)[2] == pytest.approx(undisturbed, rel=1e-4)


def test_stop_keeps_what_was_asked_for_and_what_has_not_begun(own_engine):
    scaled, halted = (
        cnai.train(digits, (EPOCHS, 0.5), ranks=2, name=name, grace_seconds=5) for name in ("scaled", "halted")
    )
    ended = cnai.train(stubborn, grace_seconds=5)
    for run, condition in ((scaled, at_step(1)), (halted, at_step(1)), (ended, on)):
        wait_for(condition, run)
    scaled.scale(1)
    halted.pause()
    ended.stop()
    assert local.stop()
    assert find(scaled.id).state is State.RESTARTING
    assert find(halted.id).state is State.PAUSED
    assert find(ended.id).state is State.CANCELLED

    again = cnai.attach(scaled.id)
    wait_for(lambda run: run.world_size == 1 and run.state is State.RUNNING, again)
    cancel(again)
    cancel(cnai.attach(halted.id))
    os.kill(local.connect().status().nodes[0].pid, signal.SIGKILL)
    until(lambda: not local.connect().status().nodes, "the node is lost")
    fresh = cnai.train(digits, (2, 0))
    assert local.stop()
    assert (find(fresh.id).state, find(fresh.id).reason) == (State.PENDING, STOPPED)
    assert cnai.attach(fresh.id).result(WAIT)[0] == 20


def terminated_twice(engine):
    pid = engine.status().pid
    os.kill(pid, signal.SIGTERM)
    until(lambda: not local.running(), "the engine leaves")
    os.kill(pid, signal.SIGTERM)


def closed_by_dask(engine):
    engine._dask.shutdown()


@pytest.mark.parametrize("way", [terminated_twice, closed_by_dask])
def test_attach_while_the_engine_still_leaves(way, own_engine):
    trainings = [cnai.train(digits, (EPOCHS, 0.05), infra_retries=0), cnai.train(plain, infra_retries=0)]
    for run, condition in zip(trainings, (at_step(2), on), strict=True):
        wait_for(condition, run)
    way(own_engine)
    again = [cnai.attach(run.id) for run in trainings]
    assert again[0].result(WAIT)[0] == STEPS
    wait_for(lambda run: len(generations(run)) == 2 and run.state is State.RUNNING, again[1])
    cancel(again[1])
