"""A Dask cluster that somebody else started, with two nodes."""

import os
import subprocess
import sys

import pytest

import cnai
from cnai.engine.control.verdicts import STOPPED
from cnai.errors import EngineError, UsageError
from cnai.events import Kind, State
from cnai.run import find
from engine.ranks import free_port
from run.training import digits
from run.waiting import until


class Cluster:
    """A scheduler with two nodes; the next one has the same address."""

    def __init__(self, file):
        self.file, self.port, self.processes = file, free_port(), []
        self.address = f"tcp://127.0.0.1:{self.port}"

    def start(self):
        env = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
        common = ["--no-dashboard", "--scheduler-file", str(self.file)]
        preload = ["--preload", "cnai.engine.supervisor"]
        scheduler = ["scheduler", "--host", "127.0.0.1", "--port", str(self.port), *preload]
        worker = ["worker", "--host", "127.0.0.1", "--no-nanny", "--nthreads", "1", "--resources", "node=1"]
        commands = [scheduler, *[[*worker, "--preload", "cnai.engine.node"]] * 2]
        self.file.unlink(missing_ok=True)
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + command[0], *command[1:], *common],
                env=env,
                stderr=subprocess.DEVNULL,
            )
            for command in commands
        ]
        until(lambda: self.file.exists() and '"address"' in self.file.read_text(), "the scheduler listens")

    def end(self, processes):
        for process in processes:
            if process.poll() is None:
                process.terminate()
            process.wait(timeout=60)


@pytest.fixture
def own(home, tmp_path, starts_processes):
    home.mkdir()
    made = Cluster(tmp_path / "scheduler.json")
    made.start()
    yield made
    made.end(reversed(made.processes))


@pytest.fixture
def cluster(own):
    return own.address


def test_two_nodes(cluster):
    def where():
        import torch
        import torch.distributed as dist

        dist.init_process_group("gloo")
        agents = torch.zeros(3, dtype=torch.int64)
        agents[dist.get_rank()] = os.getppid()
        dist.all_reduce(agents)
        return agents.tolist(), int(os.environ["GROUP_WORLD_SIZE"])

    run = cnai.train(where, ranks=3, nodes=2, backend=cluster)
    agents, nodes = run.result(120)
    assert nodes == 2
    assert agents[0] == agents[1] != agents[2]


def test_exception_on_the_second_node_ends_the_first(cluster):
    def broken():
        import time

        if os.environ["RANK"] == "1":
            raise ValueError("second node")
        time.sleep(1000)

    run = cnai.train(broken, ranks=2, nodes=2, backend=cluster)
    with pytest.raises(cnai.CnaiError, match="rank 1: ValueError: second node"):
        run.result(120)


def test_a_run_goes_on_with_the_next_scheduler_of_the_address(own):
    run = cnai.train(digits, (12, 0.05), ranks=2, nodes=2, backend=own.address, infra_retries=0)
    until(lambda: (run.step or 0) >= 5, "it trains")
    own.end(own.processes)  # the scheduler first
    left = find(run.id)
    assert (left.state, left.reason) == (State.RESTARTING, STOPPED)
    own.start()
    again = cnai.attach(run.id)
    assert again.result(120)[0] == 120
    assert [e.payload["from_step"] for e in again.events if e.kind is Kind.GENERATION] == [0, left.step]


def test_nobody_there(home):
    with pytest.raises(EngineError, match="no Dask scheduler answers at tcp://127"):
        cnai.train(print, backend="tcp://127.0.0.1:9")
    assert cnai.runs() == []


def test_not_ours_to_stop(home):
    from cnai import backends

    with pytest.raises(UsageError, match="was not started by cnai"):
        backends.get("tcp://127.0.0.1:9").stop()
