"""Processes that ranks start themselves: with every start method they find the program, as they do under torchrun."""

from __future__ import annotations

import sys
from types import ModuleType

import cnai
from cnai.events import State

WAIT = 300

SCRIPT = """
import os
import sys
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from beside import NAME

mode = sys.argv[1]


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return index * 10


def where():
    print(__name__, NAME, sys.argv, os.getcwd(), os.path.basename(__file__), flush=True)


def group(rank, port):
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    total = torch.ones(1)
    dist.all_reduce(total)
    print("sum", total.item(), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    assert mp.get_start_method(allow_none=True) is None
    mp.set_start_method(mode)
    child = mp.Process(target=where)
    child.start()
    child.join()
    print("exit", child.exitcode)
    if mode == "spawn":
        import socket
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        mp.spawn(group, (port,), nprocs=2)
        print("batches", [batch.tolist() for batch in torch.utils.data.DataLoader(Numbers(), 2, num_workers=1)])
    dist.init_process_group("gloo")
    print("own", dist.get_world_size())
"""


def test_a_script_as_it_was_when_the_run_started(engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside.py").write_text("NAME = 'beside'\n")
    (tmp_path / "program.py").write_text(SCRIPT)
    runs = [cnai.train("program.py", (mode,)) for mode in ("spawn", "forkserver")]
    (tmp_path / "program.py").write_text("raise SystemError('edited after the start')")
    for run, mode in zip(runs, ("spawn", "forkserver"), strict=True):
        assert run.wait(WAIT).state is State.SUCCEEDED, run.error
        seen = f"__mp_main__ beside ['program.py', '{mode}'] {tmp_path} program.py"
        assert run.logs().splitlines()[:2] == [seen, "exit 0"]
        assert run.logs().splitlines()[-1] == "own 1"
    assert runs[0].logs().splitlines()[2:-1] == ["sum 2.0", "sum 2.0", "batches [[0, 10], [20, 30]]"]


NOTEBOOK = """
OFFSET = 5


class Square:
    def __init__(self, side):
        self.side = side


def area(square, answers, again):
    import multiprocessing

    if again:
        child = multiprocessing.get_context("spawn").Process(target=area, args=(square, answers, False))
        child.start()
        child.join()
    answers.put(square.side**2 + OFFSET)


def fit():
    import multiprocessing

    found = []
    for method in ("spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        answers = context.Queue()
        child = context.Process(target=area, args=(Square(3), answers, method == "spawn"))
        child.start()
        found += [answers.get(timeout=200) for _ in range(1 + (method == "spawn"))]
        child.join()
    return found
"""


def test_a_function_of_a_notebook_finds_its_neighbors(engine, monkeypatch):
    notebook = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    exec(NOTEBOOK, vars(notebook))
    assert cnai.train(notebook.fit).result(WAIT) == [14, 14, 14]


def test_cuda_can_be_used_after_the_fork(engine):
    """Without a GPU, its absence is the reason: `Found no NVIDIA driver`, never the fork."""

    def initializes():
        import torch

        try:
            torch.zeros(1, device="cuda")
        except (RuntimeError, AssertionError) as error:
            return torch.cuda._is_in_bad_fork(), str(error)
        return torch.cuda._is_in_bad_fork(), ""

    in_bad_fork, why = cnai.train(initializes).result(WAIT)
    assert not in_bad_fork
    assert "fork" not in why
