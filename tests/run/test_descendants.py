"""What ranks start ends with them, however they end, and daemons do, too."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

import cnai
from cnai.backends.local import client as local
from cnai.backends.local import processes
from cnai.events import State
from run.waiting import until

WAIT = 120


def start_children(*, stays):
    """Start a child, a pool's worker and a daemon that ignores SIGTERM; print the pids of rank, agent and these."""
    import multiprocessing
    import os
    import signal
    import subprocess
    import time

    child = subprocess.Popen(["sleep", "1000"], start_new_session=True).pid
    pool = multiprocessing.get_context("forkserver").Pool(1)
    worker = pool.apply(os.getpid)
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writing, str(os.getpid()).encode())
            time.sleep(1000)
        os._exit(0)
    os.wait()
    print(os.getpid(), os.getppid(), child, worker, int(os.read(reading, 20)), flush=True)
    time.sleep(1000 if stays else 0)


def started(run):
    until(lambda: run.logs(), "pids")
    return [psutil.Process(int(pid)) for pid in run.logs().splitlines()[0].split()]


def gone(those):
    return not any(map(processes.alive, those))


@pytest.mark.parametrize("how", ["stop", "rank", "agent"])
def test_end_with_a_run_that_is(engine, how):
    run = cnai.train(start_children, kwargs={"stays": True}, infra_retries=0)
    those = started(run)
    if how == "stop":
        run.stop()
    else:
        those[how == "agent"].kill()
    assert run.wait(WAIT).state is (State.CANCELLED if how == "stop" else State.FAILED)
    assert gone(those), those


def test_end_with_a_run_that_succeeds(engine):
    run = cnai.train(start_children, kwargs={"stays": False})
    until(lambda: run.wait(WAIT).state.final)
    assert run.state is State.SUCCEEDED
    pids = [int(pid) for pid in run.logs().splitlines()[0].split()]
    assert not any(map(psutil.pid_exists, pids)), pids
    assert "cnai: ended processes that outlived their rank by 2 s: " in run.logs()
    assert "sleep 1000" in run.logs()


@pytest.mark.parametrize("killed", ["nothing", "node", "engine", "node and engine"])
def test_end_with_the_engine(own_engine, killed):
    run = cnai.train(start_children, kwargs={"stays": True}, infra_retries=0)
    of_run = started(run)
    engine, node = psutil.Process(local.running().pid), psutil.Process(own_engine.status().nodes[0].pid)
    those = [*of_run, engine, *engine.children(recursive=True)]
    for process in (node, engine):
        if {node: "node", engine: "engine"}[process] in killed:
            os.kill(process.pid, signal.SIGKILL)
    if killed == "node":
        until(lambda: gone(of_run), of_run)
    local.stop()
    until(lambda: gone(those), those)
