"""A Dask cluster that somebody else started, with two nodes."""

import json
import os
import subprocess
import sys

import pytest

import cnai
from cnai.errors import EngineError, UsageError
from run.waiting import until


@pytest.fixture
def cluster(home, tmp_path):
    home.mkdir()
    env = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    file = tmp_path / "scheduler.json"
    common = ["--no-dashboard", "--scheduler-file", str(file)]
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--preload", "cnai.engine.supervisor"]
    worker = ["worker", "--host", "127.0.0.1", "--no-nanny", "--nthreads", "1", "--resources", "node=1"]
    commands = [scheduler, *[[*worker, "--preload", "cnai.engine.node"]] * 2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + command[0], *command[1:], *common],
            env=env,
            stderr=subprocess.DEVNULL,
        )
        for command in commands
    ]
    until(lambda: file.exists() and '"address"' in file.read_text(), "the scheduler listens")
    yield json.loads(file.read_text())["address"]
    for process in reversed(processes):
        process.terminate()
        process.wait(timeout=60)


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


def test_nobody_there(home):
    with pytest.raises(EngineError, match="no Dask scheduler answers at tcp://127"):
        cnai.train(print, backend="tcp://127.0.0.1:9")


def test_not_ours_to_stop(home):
    from cnai import backends

    with pytest.raises(UsageError, match="was not started by cnai"):
        backends.get("tcp://127.0.0.1:9").stop()
