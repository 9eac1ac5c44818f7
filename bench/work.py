"""The work of every peer: two DDP ranks on gloo, one thread each, a small network and some matmuls per step."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

SIZE = 256


def train(out: str, steps: int = 20, burn: int = 0) -> float:
    """Train and let rank 0 write the times; creates the default process group if none exists."""
    import torch.distributed as dist

    mine = not dist.is_initialized()
    if mine:
        dist.init_process_group("gloo")
    try:
        return _train(out, steps, burn)
    finally:
        # Only after the model is freed, because destroying a group that DDP still uses sometimes aborts.
        if mine:
            dist.destroy_process_group()


def _train(out: str, steps: int, burn: int) -> float:
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(rank)
    durations, first, cpu = [], 0.0, 0.0
    for _ in range(steps):
        x, y = batch(generator)
        start = time.perf_counter()
        compute(burn)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        durations.append(time.perf_counter() - start)
        first, cpu = first or time.time(), cpu or time.process_time()
    if rank == 0:
        write(out, first, durations, time.process_time() - cpu)
    return loss.item()


def train_with_context(out: str, steps: int, burn: int) -> None:
    """Do the same through `cnai.context()`: checkpoints in the background and two reports in each step."""
    import torch

    import cnai

    torch.set_num_threads(1)
    torch.manual_seed(0)
    ctx = cnai.context()
    net = network()
    model, optimizer = ctx.prepare(net, torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9))
    generator = torch.Generator().manual_seed(ctx.rank)
    durations, first, cpu, start = [], 0.0, 0.0, time.perf_counter()
    for _ in ctx.loop(steps):
        x, y = batch(generator)
        compute(burn)
        loss = torch.nn.functional.cross_entropy(model(x), y)
        ctx.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        ctx.report(loss=loss, accuracy=0.5)
        # From step to step, to include the context's work between two steps.
        durations.append(time.perf_counter() - start)
        start = time.perf_counter()
        first, cpu = first or time.time(), cpu or time.process_time()
    if ctx.rank == 0:
        write(out, first, durations, time.process_time() - cpu)


def network():
    """Return the model."""
    from torch import nn

    return nn.Sequential(nn.Linear(128, SIZE), nn.ReLU(), nn.Linear(SIZE, SIZE), nn.ReLU(), nn.Linear(SIZE, 10))


def batch(generator):
    """Return random inputs and labels."""
    import torch

    return torch.randn(64, 128, generator=generator), torch.randint(0, 10, (64,), generator=generator)


_square = None


def compute(burn: int) -> None:
    """Multiply two matrices `burn` times, to keep a core busy, unlike a sleep."""
    global _square
    if not burn:
        return
    import torch

    if _square is None:
        _square = torch.randn(SIZE, SIZE)
    for _ in range(burn):
        torch.mm(_square, _square)


def write(out: str, first: float, durations: list[float], cpu: float) -> None:
    """Write the numbers for the session, atomically."""
    fresh = Path(f"{out}.{os.getpid()}")
    fresh.write_text(json.dumps({"first": first, "durations": durations, "cpu_ms": 1e3 * cpu / (len(durations) - 1)}))
    fresh.replace(out)


def calibrate(milliseconds: float) -> int:
    """Return how many multiplications take this long on one core of this machine."""
    import torch

    torch.set_num_threads(1)
    compute(200)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        compute(200)
        times.append((time.perf_counter() - start) / 200)
    return max(1, round(milliseconds / 1e3 / min(times)))


if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
