"""Ranks whose random numbers differ agree on what they must share: models that DDP doesn't wrap, and the data."""

import pytest
import torch
from torch.utils.data import TensorDataset, random_split

from engine.ranks import checkpoints, launch
from engine.trainings import samples

pytestmark = pytest.mark.usefixtures("starts_processes")


class Projection(torch.nn.Module):
    """A weight to shard, one that isn't, and random buffers."""

    def __init__(self):
        super().__init__()
        self.hidden = torch.nn.Linear(8, 8)
        self.register_buffer("features", torch.randn(4))
        self.register_buffer("mask", torch.rand(64) > 0.5)

    def forward(self, x):
        return self.hidden(x) + self.features.sum()


def prepared(ctx):
    """What each rank holds after `prepare` of models that it drew by itself."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(ctx.rank)
    frozen = Projection().requires_grad_(False)
    net = torch.nn.Linear(3, 3)
    average = torch.optim.swa_utils.AveragedModel(net)
    sharded = Projection()
    fully_shard(sharded, mesh=init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "parts")))
    own = sharded.hidden.weight.to_local().tolist()
    ctx.prepare(frozen, net, average, sharded)
    whole = {
        "frozen": frozen.state_dict(),
        "average": average.state_dict(),
        "buffers": dict(sharded.named_buffers()),
    }
    told = {kind: {name: value.tolist() for name, value in each.items()} for kind, each in whole.items()}
    return told, own, sharded.hidden.weight.to_local().tolist()


def test_all_ranks_begin_with_the_first_ones_weights_and_buffers(tmp_path):
    ranks = launch(prepared, 4, tmp_path)
    assert [rank.ended for rank in ranks] == ["returned"] * 4, ranks[0].value
    for kind in ranks[0].value[0]:
        assert all(rank.value[0][kind] == ranks[0].value[0][kind] for rank in ranks), kind
    drawn, held = [rank.value[1] for rank in ranks], [rank.value[2] for rank in ranks]
    assert held == [drawn[0], drawn[1], drawn[0], drawn[1]]


def over(ctx, kind, rank_seed=1, steps=None):
    """Train on data that is drawn with the seeds that the ranks have."""
    torch.manual_seed(rank_seed * (ctx.rank + 1))
    x, _, _ = samples()
    data = {
        "split": lambda: random_split(TensorDataset(x), [100, 50])[0],
        "drawn": lambda: torch.randn(64, 8),
        "shuffled": lambda: (x[torch.randperm(len(x))], x),
        "objects": lambda: random_split([{"x": row} for row in x], [100, 50])[0],
    }[kind]()
    for _ in ctx.steps(data, 32):
        if ctx.step == steps and ctx.boundary:
            ctx._loop.wait()
            raise RuntimeError("as asked")


@pytest.mark.parametrize("kind", ["split", "drawn", "shuffled", "objects"])
def test_data_that_each_rank_draws_by_itself_is_refused(kind, tmp_path):
    ranks = launch(over, 2, tmp_path, kind)
    assert [rank.ended for rank in ranks] == ["raised UsageError"] * 2, ranks[0].value
    assert "rank 1 has different data than rank 0; seed the code that draws or splits the data" in ranks[1].value
    assert [rank.ended for rank in launch(over, 2, tmp_path, kind, 0)] == ["returned"] * 2


def test_a_checkpoint_knows_its_data(tmp_path):
    (first,) = launch(over, 1, tmp_path, "split", 1, 2, every=1)
    latest = checkpoints([first])[-1]
    (same,) = launch(over, 1, tmp_path, "split", 1, generation=1, resume=latest)
    assert same.ended == "returned", same.value
    (other,) = launch(over, 1, tmp_path, "split", 2, generation=1, resume=latest)
    assert other.ended == "raised UsageError"
    assert "is from a loop over other data or arguments (data was" in other.value
