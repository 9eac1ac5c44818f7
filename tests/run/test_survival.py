"""Runs go on: past killed ranks, nodes, kernels and schedulers, and through pauses and resizes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest

import cnai
from cnai.engine.control.client import CONNECT_SECONDS
from cnai.errors import EngineError, RunFailed
from cnai.events import Kind, State
from run.training import digits

WAIT = 120
EPOCHS = 12
STEPS = 10 * EPOCHS
RUNS = 20


def wait_for(condition, run, seconds=WAIT):
    deadline = time.monotonic() + seconds
    while not condition(run):
        assert time.monotonic() < deadline, f"{run}: {[e for e in run.events if e.kind is not Kind.METRIC]}"
        assert not run.state.final, f"{run}: {run.reason}"
        time.sleep(0.01)


def at_step(step):
    return lambda run: (run.step or 0) >= step


def generations(run):
    return [event.payload["ranks"] for event in run.events if event.kind is Kind.GENERATION]


@pytest.fixture(scope="module")
def undisturbed(engine_home):
    """Weights at the end of a run that nobody disturbs."""
    return cnai.train(digits, (EPOCHS, 0)).result(WAIT)[2]


def assert_as_undisturbed(run, undisturbed):
    step, _, weights = run.result(WAIT)
    assert step == STEPS
    assert weights == pytest.approx(undisturbed, rel=1e-4)
    assert run.metrics["loss"].steps == list(range(1, STEPS + 1))


def test_resize_keeps_step_batch_and_order(engine, undisturbed):
    run = cnai.train(digits, (EPOCHS,), ranks=2)
    for ranks in (3, 1):
        step = run.step or 0
        wait_for(at_step(step + 15), run)
        run.scale(ranks)
        wait_for(lambda run, ranks=ranks: run.world_size == ranks and run.state is State.RUNNING, run)
    assert_as_undisturbed(run, undisturbed)
    assert generations(run) == [2, 3, 1]
    assert run.result()[1] == 1


def test_pause_and_resume(engine, undisturbed):
    run = cnai.train(digits, (EPOCHS,), ranks=2)
    wait_for(at_step(20), run)
    run.pause()
    wait_for(lambda run: run.state is State.PAUSED, run)
    paused_at = run.step
    run.resume()
    assert_as_undisturbed(run, undisturbed)
    started = [event.payload["from_step"] for event in run.events if event.kind is Kind.GENERATION]
    assert started == [0, paused_at]


def test_scaled_before_a_resumed_generation_has_begun(engine, undisturbed):
    run = cnai.train(digits, (EPOCHS,), ranks=2)
    wait_for(at_step(20), run)
    run.pause()
    wait_for(lambda run: run.state is State.PAUSED, run)
    run.resume()
    with pytest.raises(cnai.CnaiError, match="not PAUSED; there is nothing to resume"):
        run.resume()
    run.scale(1)
    assert_as_undisturbed(run, undisturbed)
    assert generations(run)[0] == 2
    assert generations(run)[-1] == 1


def test_too_many_ranks_are_refused_and_nothing_is_lost(engine):
    run = cnai.train(digits, (EPOCHS,), ranks=2)
    wait_for(at_step(1), run)
    with pytest.raises(cnai.CnaiError, match="4 shards; ranks may be 1 to 4"):
        run.scale(5)
    for ranks, message in ((0, "ranks must be 1 or more"), (1000, "1000 ranks are more than")):
        with pytest.raises(cnai.CnaiError, match=message):
            run.scale(ranks)
    run.scale(2)  # as it is already
    assert run.result(WAIT)[0] == STEPS
    assert generations(run) == [2]


def test_killed_rank(engine, undisturbed):
    run = cnai.train(digits, (EPOCHS,), ranks=2, checkpoint_every=5)
    wait_for(lambda run: any(event.kind is Kind.CHECKPOINT for event in run.events), run)
    os.kill(rank_pids(run)[1], signal.SIGKILL)
    assert_as_undisturbed(run, undisturbed)
    assert len(generations(run)) == 2
    restarting = next(e for e in run.events if e.kind is Kind.STATE and e.payload["state"] == State.RESTARTING)
    assert "rank 1 was killed by SIGKILL; continuing from step-" in restarting.payload["reason"]


def test_killed_node(engine, undisturbed):
    run = cnai.train(digits, (EPOCHS,), ranks=2, checkpoint_every=5)
    wait_for(lambda run: any(event.kind is Kind.CHECKPOINT for event in run.events), run)
    os.kill(engine.status().nodes[0].pid, signal.SIGKILL)
    assert_as_undisturbed(run, undisturbed)
    assert len(generations(run)) == 2


def test_a_lost_scheduler_is_told_in_one_line(own_engine, caplog, request):
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
        logger = logging.getLogger(name)  # Dask's loggers don't propagate
        logger.addHandler(caplog.handler)
        request.addfinalizer(partial(logger.removeHandler, caplog.handler))
    run = cnai.train(digits, (EPOCHS, 0.5))
    wait_for(at_step(1), run)
    os.kill(own_engine.status().pid, signal.SIGKILL)
    with pytest.raises(EngineError, match=f"the engine was lost; `%cnai attach {run.id}` starts it again"):
        run.wait(WAIT)
    time.sleep(CONNECT_SECONDS + 1)  # as long as Dask would try to reconnect
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []


def test_killed_scheduler(engine, undisturbed):
    run = cnai.train(digits, (EPOCHS,), ranks=2, checkpoint_every=5)
    wait_for(lambda run: any(event.kind is Kind.CHECKPOINT for event in run.events), run)
    ranks = rank_pids(run)
    os.kill(engine.status().pid, signal.SIGKILL)
    with pytest.raises(cnai.CnaiError, match="the engine was lost"):
        run.wait(WAIT)
    again = cnai.attach(run.id)
    assert_as_undisturbed(again, undisturbed)
    assert len(generations(again)) == 2
    assert run.result(WAIT) == again.result(WAIT)
    for pid in ranks:
        assert not psutil.pid_exists(pid)


def test_killed_kernel(engine, undisturbed, tmp_path):
    kernel = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from run.training import digits; import cnai\n"
            f"print(cnai.train(digits, ({EPOCHS},), ranks=2).id, flush=True); time.sleep(1000)",
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    run_id = kernel.stdout.readline().strip()
    kernel.kill()
    kernel.wait()
    kernel.stdout.close()
    run = cnai.attach(run_id)
    assert_as_undisturbed(run, undisturbed)
    assert generations(run) == [2]


def test_killed_pause(engine, undisturbed):
    """A paused run waits also through the death of its scheduler."""
    run = cnai.train(digits, (EPOCHS,), ranks=2)
    wait_for(at_step(20), run)
    run.pause()
    wait_for(lambda run: run.state is State.PAUSED, run)
    os.kill(engine.status().pid, signal.SIGKILL)
    again = cnai.attach(run.id)
    assert again.state is State.PAUSED
    again.resume()
    assert_as_undisturbed(again, undisturbed)


def test_exception_after_progress_spends_no_infra_retries(engine):
    def fails_late():
        import cnai

        ctx = cnai.context()
        for step in ctx.loop(20):
            if step == 7:
                raise RuntimeError("at step 7")

    run = cnai.train(fails_late, checkpoint_every=2)
    with pytest.raises(RunFailed, match="at step 7"):
        run.result(WAIT)
    assert generations(run) == [1]


def test_many_runs_leave_nothing(engine):
    """20 runs leave no process, port or file descriptor each in kernel, scheduler or node."""

    def nothing():
        return None

    def held():
        pids = [os.getpid(), engine.status().pid, engine.status().nodes[0].pid]
        return [
            (len(p.children(recursive=True)), p.num_fds(), len(p.net_connections())) for p in map(psutil.Process, pids)
        ]

    for _ in range(3):
        cnai.train(nothing).result(WAIT)
    before = held()
    for _ in range(RUNS):
        cnai.train(nothing).result(WAIT)
    more = [
        now - then for nows, thens in zip(held(), before, strict=True) for now, then in zip(nows, thens, strict=True)
    ]
    assert max(more) < RUNS, more  # Dask's pools of connections breathe; what a run leaves behind shows in each run


def rank_pids(run):
    """Pids of the present generation's ranks, by rank."""
    printed = {
        e.rank: int(e.payload["text"].split()[1])
        for e in run.events
        if e.kind is Kind.LOG and "pid" in e.payload["text"]
    }
    return [printed[rank] for rank in sorted(printed)]
