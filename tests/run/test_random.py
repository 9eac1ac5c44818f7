"""Random numbers are those of a process that was started, not forked: others in each rank and in each run."""

from __future__ import annotations

import cnai

WAIT = 90


def draw():
    import random

    import numpy as np
    import torch
    import torch.distributed as dist
    from torch.utils.data import DataLoader

    drawn = {
        "torch": torch.rand(1).item(),
        "dropout": torch.nn.functional.dropout(torch.ones(64)).tolist(),
        "weights": torch.nn.Linear(4, 4).weight.tolist(),
        "shuffle": [batch.tolist() for batch in DataLoader(range(64), batch_size=64, shuffle=True)],
        "worker": [batch.tolist() for batch in DataLoader(_Noise(), num_workers=1)],
        "numpy": np.random.rand(),
        "random": random.random(),
    }
    dist.init_process_group("gloo")
    everywhere = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, drawn)
    return everywhere


class _Noise:
    def __len__(self):
        return 1

    def __getitem__(self, _):
        import torch

        return torch.rand(1)


def test_each_rank_of_each_run_draws_its_own_numbers(engine):
    drawn = [rank for _ in range(2) for rank in cnai.train(draw, ranks=2).result(WAIT)]
    for kind in drawn[0]:
        numbers = [str(rank[kind]) for rank in drawn]
        assert len(set(numbers)) == 4, f"{kind}: {numbers}"


def test_seeded_ranks_draw_what_torch_draws(engine):
    def seeded():
        import torch

        torch.manual_seed(7)
        return torch.rand(3).tolist()

    assert cnai.train(seeded, ranks=2).result(WAIT) == seeded()
