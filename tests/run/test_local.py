"""Runs on the real local engine: detached Dask, torch's agent, forked ranks."""

from __future__ import annotations

import os
import sys
import time

import psutil
import pytest

import cnai
from cnai.backends.local.engine import RUNS_AT_ONCE
from cnai.errors import ResultError, RunCancelled, RunFailed, UsageError
from cnai.events import Kind, State
from cnai.faces.text import runs_table, summary
from cnai.faces.widgets.page import page
from run.waiting import until

WAIT = 90


def add_up(value):
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    total = torch.tensor(float(value + dist.get_rank()))
    dist.all_reduce(total)
    print(f"rank {dist.get_rank()} of {dist.get_world_size()}")
    return float(total)


def test_returns_what_rank_0_returned(engine):
    run = cnai.train(add_up, (10,), ranks=2)
    assert run.result(WAIT) == 21.0
    assert run.state is State.SUCCEEDED
    assert run.world_size == 2
    assert sorted(run.logs().splitlines()) == ["rank 0 of 2", "rank 1 of 2"]
    assert run.logs(rank=1) == "rank 1 of 2\n"


def test_ranks_are_not_the_kernel_nor_the_node(engine):
    def where():
        return os.getpid(), os.getppid(), "distributed" in sys.modules

    rank, agent, dask = cnai.train(where).result(WAIT)
    assert os.getpid() not in {rank, agent}
    assert not dask
    node = engine.status().nodes[0].pid
    assert node not in {None, rank, agent, os.getpid()}


def test_another_handle_sees_the_same_events(engine):
    run = cnai.train(add_up, (1,), ranks=2, name="twice")
    run.result(WAIT)
    again = cnai.attach(run.id)
    assert again.events == run.events
    assert again.result(0) == run.result(0)
    assert cnai.attach("twice").id == run.id
    assert run.id in [found.id for found in cnai.runs()]


def test_live_events_come_without_hole_or_repetition(engine):
    def chatty():
        for number in range(300):
            print(number)
            time.sleep(0.002)

    run = cnai.train(chatty)
    until(run.logs, "output")
    watched = []
    late = cnai.attach(run.id)
    late.watch(watched.extend)
    late.wait(WAIT)
    assert [int(line) for line in late.logs().split()] == list(range(300))
    assert watched == late.events


def test_exception_shows_rank_and_the_users_own_lines(engine):
    def broken():
        import torch.distributed as dist

        dist.init_process_group("gloo")
        if dist.get_rank() == 1:
            raise ValueError("no such digit")
        dist.barrier()

    run = cnai.train(broken, ranks=2)
    with pytest.raises(RunFailed) as failed:
        run.result(WAIT)
    assert failed.value.rank == 1
    assert failed.value.summary == "rank 1: ValueError: no such digit"
    assert 'raise ValueError("no such digit")' in str(failed.value)
    assert "engine/rank.py" not in str(failed.value)
    assert run.state is State.FAILED


class Wordless(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def wordless():
    raise Wordless


@pytest.mark.parametrize(
    ("how", "summary"),
    [
        (wordless, "rank 0: Wordless: <exception str() failed>"),
        (lambda: os._exit(3), "rank 0 exited with code 3"),
        (lambda: sys.exit(4), "rank 0: the target called sys.exit(4)"),
        (lambda: os.kill(os.getpid(), 11), "rank 0 was killed by SIGSEGV"),
    ],
)
def test_deaths_are_named(engine, how, summary):
    run = cnai.train(how, name="death", infra_retries=0)
    with pytest.raises(RunFailed) as failed:
        run.result(WAIT)
    assert failed.value.summary == summary


def test_a_crash_shows_the_authors_line(engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "native.py").write_text("import ctypes\n\n\ndef deep():\n    ctypes.string_at(0)\n")
    (tmp_path / "crash.py").write_text("import native\n\nprint('before')\nnative.deep()\n")
    with pytest.raises(RunFailed) as failed:
        cnai.train("crash.py", infra_retries=0).result(WAIT)
    *_, before, fatal, inner, middle, outer = failed.value.log_tail.splitlines()
    assert (before, fatal) == ("before", "Fatal Python error: Segmentation fault")
    assert "ctypes/__init__.py" in inner
    assert middle == f'  File "{tmp_path}/native.py", line 5 in deep'
    assert outer == f'  File "{tmp_path}/crash.py", line 4 in <module>'


def test_numbers_that_are_lost_are_named(engine):
    def diverging():
        ctx = cnai.context()
        for step in ctx.loop(30):
            ctx.report(loss=float("nan") if step > 20 else 1.0, norm=float("inf") if step == 30 else 1.0, fine=step)

    run = cnai.train(diverging)
    assert run.wait(WAIT).state is State.SUCCEEDED
    assert run.trouble == "loss is NaN since step 21 · norm is inf since step 30"
    shown = [summary(run), repr(runs_table([run])), page(run).head]
    assert all(run.trouble in text for text in shown), shown


def test_clean_sys_exit_is_success(engine):
    assert cnai.train(lambda: sys.exit(0), name="leave").wait(WAIT).state is State.SUCCEEDED


def test_stop_ends_ranks_and_leaves_no_process(engine):
    def forever():
        print(os.getpid())
        time.sleep(1000)

    run = cnai.train(forever)
    until(run.logs, "output")
    pid = int(run.logs())
    run.stop()
    with pytest.raises(RunCancelled):
        run.result(WAIT)
    assert run.state is State.CANCELLED
    assert not psutil.pid_exists(pid)
    with pytest.raises(UsageError, match="CANCELLED already"):
        run.stop()


def test_runs_beyond_the_nodes_room_wait_and_can_be_stopped(own_engine):
    def forever():
        time.sleep(1000)

    running = [cnai.train(forever) for _ in range(RUNS_AT_ONCE)]
    waiting = cnai.train(forever)
    until(lambda: all(run.state is State.RUNNING for run in running), "all places are taken")
    assert waiting.state is State.PENDING
    waiting.stop()
    assert waiting.wait(WAIT).state is State.CANCELLED
    last = cnai.train(add_up, (1,))
    for run in running:
        run.stop()
    assert last.result(WAIT) == 1.0
    assert {run.wait(WAIT).state for run in running} == {State.CANCELLED}


def test_code_without_context_cannot_pause_or_scale(engine):
    def plain():
        print("on")
        time.sleep(1000)

    run = cnai.train(plain)
    until(run.logs, "output")
    for ask in (run.pause, lambda: run.scale(2)):
        with pytest.raises(UsageError, match="has not reached ctx"):
            ask()
    assert run.state is State.RUNNING
    run.stop()
    run.wait(WAIT)


def test_lost_rank_is_started_again_until_the_budget_is_spent(engine):
    def killed():
        os.kill(os.getpid(), 9)

    run = cnai.train(killed, infra_retries=1)
    with pytest.raises(RunFailed, match="SIGKILL"):
        run.result(WAIT)
    assert [event.generation for event in run.events if event.kind is Kind.GENERATION] == [0, 1]
    assert run.error is not None
    assert "memory" in run.error.hint


def test_deadline_and_stall(engine):
    def hang():
        time.sleep(1000)

    late = cnai.train(hang, deadline_seconds=0.5)
    stuck = cnai.train(hang, stall_seconds=0.5, infra_retries=0)
    with pytest.raises(RunFailed, match="deadline of 0"):
        late.result(WAIT)
    with pytest.raises(RunFailed, match="no step or output for 0"):
        stuck.result(WAIT)
    assert "in hang" in stuck.logs()


def test_result_that_cannot_travel(engine):
    run = cnai.train(lambda: (n for n in range(3)), name="generator")
    with pytest.raises(ResultError, match="returned a generator"):
        run.result(WAIT)
    assert run.state is State.SUCCEEDED


def test_environment_and_folder(engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def look():
        keys = ("MY_SETTING", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "CNAI_RUN_ID")
        return os.getcwd(), {key: os.environ.get(key) for key in keys}

    run = cnai.train(look, env={"MY_SETTING": "7"})
    cwd, seen = run.result(WAIT)
    assert cwd == str(tmp_path)
    assert seen == {
        "MY_SETTING": "7",
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "CNAI_RUN_ID": run.id,
    }


def test_runs_draw_different_random_numbers(engine):
    def draw():
        import random

        import numpy as np

        return random.random(), float(np.random.random())

    first, second = (cnai.train(draw).result(WAIT) for _ in range(2))
    assert first[0] != second[0]
    assert first[1] != second[1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ranks": -1}, "ranks must be 1 or more"),
        ({"ranks": 1000}, "1000 ranks are more than"),
        ({"nodes": 2, "ranks": 2}, "the local backend has 1 node"),
        ({"flavor": "gpu4"}, "flavor 'gpu4' .* can't be started here: this machine has"),
        ({"flavor": "smal"}, "unknown flavor 'smal'; did you mean 'small'"),
        ({"image": "x"}, "unknown image 'x'"),
        ({"backend": "moon"}, "unknown backend 'moon'"),
        ({"rnaks": 2}, "unknown keyword rnaks"),
        ({"checkpoint_every": "soon"}, "checkpoint_every must be a number of steps"),
    ],
)
def test_wrong_words_start_nothing(home, wrong, message):
    with pytest.raises(UsageError, match=message):
        cnai.train(add_up, (1,), **wrong)
    assert not (home / "runs").exists() or cnai.runs() == []


def test_full_disk_is_one_line_and_starts_nothing(home, monkeypatch):
    home.mkdir()
    (home / "runs").symlink_to("/dev/full")
    with pytest.raises(cnai.CnaiError, match="can't write") as refused:
        cnai.train(add_up, (1,))
    assert "\n" not in str(refused.value)
