"""The engine's own figures, one JSON line each: latency of reports, errors, recovery, memory, a hundred runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

REPORTS_PER_SECOND = 1000
SECONDS = 5
TRIES = 5


def main() -> None:
    """Measure everything with a separate engine."""
    os.environ.update(OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo")
    with tempfile.TemporaryDirectory() as home:
        os.environ["CNAI_HOME"] = home
        from cnai.backends.local import client as local

        say("load_ext_seconds", *loading())
        try:
            first_run()
            latency()
            errors()
            recovery()
            memory()
            hundred_runs()
        finally:
            local.stop()


def say(name: str, *values: float) -> None:
    """Print a figure's median and range."""
    print(
        json.dumps({"name": name, "median": statistics.median(values), "low": min(values), "high": max(values)}),
        flush=True,
    )


LOAD = """
import time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
start = time.perf_counter()
shell.run_line_magic("load_ext", "cnai")
print(time.perf_counter() - start)
"""


def loading() -> list[float]:
    """Return how many seconds `%load_ext cnai` takes in fresh processes with IPython loaded."""
    return [
        float(
            subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True).stdout.split()[-1]
        )
        for _ in range(TRIES)
    ]


def nothing() -> None:
    """Do nothing, as the target of a run."""


def first_run() -> None:
    """Start the engine and import everything, so that later measurements don't include that."""
    import cnai

    cnai.train(nothing, ranks=2).result()


def report(seconds: float, rate: int) -> int:
    """Report `rate` numbers per second, each when it is due, and return how many."""
    import cnai

    ctx = cnai.context()
    start, number = time.perf_counter(), 0
    while number < seconds * rate:
        number += 1
        ctx.report(number=number)
        time.sleep(max(0.0, start + number / rate - time.perf_counter()))
    return number


def latency() -> None:
    """Report 1,000 numbers per second, and measure when the notebook receives each and how many it misses."""
    import cnai
    from cnai.events import Kind

    delays: list[float] = []
    seen: set[float] = set()

    def hear(events: list) -> None:
        now = time.time()
        metrics = [event for event in events if event.kind is Kind.METRIC]
        delays.extend(now - event.time for event in metrics)
        seen.update(event.payload["number"] for event in metrics)

    run = cnai.train(report, (SECONDS, REPORTS_PER_SECOND))
    quit_watching = run.watch(hear)
    sent = run.result()
    until(lambda: len(seen) == sent, 10)
    quit_watching()
    ranked = sorted(delays)
    say("report_p50_ms", 1e3 * ranked[len(ranked) // 2])
    say("report_p99_ms", 1e3 * ranked[int(len(ranked) * 0.99)])
    say("reports_sent", sent)
    say("reports_lost", sent - len(seen))


def fail() -> None:
    """Raise an exception that carries the current time."""
    raise ValueError(time.time())


def errors() -> None:
    """Measure the time from a rank's exception to the cell's exception."""
    import cnai
    from cnai.errors import RunFailed

    delays = []
    for _ in range(TRIES):
        try:
            cnai.train(fail, ranks=2).result()
        except RunFailed as error:
            delays.append(time.time() - float(str(error.summary).rpartition(" ")[2].strip("()")))
    say("exception_to_cell_seconds", *delays)


def steps(total: int, pause: float) -> int:
    """Take steps of a fixed length, with checkpoints."""
    import torch

    import cnai

    print("pid", os.getpid(), flush=True)
    ctx = cnai.context()
    net = torch.nn.Linear(8, 1)
    model, optimizer = ctx.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1))
    for step in ctx.loop(total):
        ctx.backward(model(torch.ones(4, 8)).mean())
        optimizer.step()
        optimizer.zero_grad()
        ctx.report(step=step)
        time.sleep(pause)
    return ctx.generation


def recovery() -> None:
    """SIGKILL a training rank, and measure the time to the new generation's first step and the repeated steps."""
    import cnai
    from cnai.events import Kind

    gaps, redone = [], []
    for _ in range(TRIES):
        run = cnai.train(steps, (100_000, 0.01), ranks=2, checkpoint_every=20, infra_retries=3)
        until(lambda run=run: (run.step or 0) > 50 and "pid" in run.logs(1), 60)
        pid = int(run.logs(1).split()[1])
        killed_at, killed = run.step or 0, time.time()
        os.kill(pid, signal.SIGKILL)
        until(lambda run=run: any(e.generation == 1 and e.kind is Kind.METRIC for e in run.events), 60)
        first = next(event for event in run.events if event.generation == 1 and event.kind is Kind.METRIC)
        gaps.append(first.time - killed)
        redone.append(killed_at - (first.step or 0) + 1)
        run.stop()
        with contextlib.suppress(Exception):
            run.wait(30)
    say("sigkill_to_step_seconds", *gaps)
    say("steps_redone", *redone)


def idle(seconds: float) -> int:
    """Print the rank's pid and sleep."""
    print("pid", os.getpid(), flush=True)
    time.sleep(seconds)
    return os.getpid()


def memory() -> None:
    """Measure the resident memory of the engine's processes, and the memory that an idle rank does not share."""
    import cnai
    from cnai.backends.local import client as local

    run = cnai.train(idle, (4.0,), ranks=2)
    until(lambda: run.logs().count("pid") == 2, 60)
    ranks = [int(word) for word in run.logs().split() if word.isdigit()]
    say("idle_rank_unique_mb", *[psutil.Process(pid).memory_full_info().uss / 1e6 for pid in ranks])
    scheduler = psutil.Process(local.connect().status().pid)
    say("scheduler_rss_mb", scheduler.memory_info().rss / 1e6)
    say("dask_worker_rss_mb", *[node.memory_info().rss / 1e6 for node in scheduler.children()])
    run.wait()


def hundred_runs() -> None:
    """Start a hundred runs one after the other, and measure what they leave behind."""
    import cnai
    from cnai.backends.local import client as local

    scheduler = psutil.Process(local.connect().status().pid)
    for _ in range(10):
        cnai.train(nothing, ranks=2).result()
    before = leftovers(scheduler)
    start = time.perf_counter()
    for _ in range(100):
        cnai.train(nothing, ranks=2).result()
    say("hundred_runs_seconds", time.perf_counter() - start)
    time.sleep(1)
    after = leftovers(scheduler)
    for name, value in after.items():
        say(f"hundred_runs_more_{name}", value - before[name])


def leftovers(scheduler: psutil.Process) -> dict[str, float]:
    """Count the resources that a run could leak, in this process and in the engine's."""
    here = psutil.Process()
    engine = [scheduler, *scheduler.children(recursive=True)]
    return {
        "processes": len(engine) + len(here.children(recursive=True)),
        "notebook_files": here.num_fds(),
        "engine_files": sum(process.num_fds() for process in engine),
        "ports": sum(len(process.net_connections()) for process in [here, *engine]),
        "notebook_mb": here.memory_info().rss / 1e6,
        "engine_mb": sum(process.memory_full_info().uss for process in engine) / 1e6,
    }


def until(done: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition holds, at most `seconds`."""
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.005)


if __name__ == "__main__":
    main()
