"""Models sharded with FSDP2 train and resume like others."""

import pytest
import torch
import torch.nn.functional as F

from engine.ranks import checkpoints, launch, metric
from engine.trainings import samples

pytestmark = pytest.mark.usefixtures("starts_children")


def sharded(ctx, shard=True):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Dropout(0.3), torch.nn.Linear(32, 3))
    if shard:
        fully_shard(net, mesh=init_device_mesh("cpu", (ctx.world_size,)))
    model, optimizer = ctx.prepare(net, torch.optim.Adam(net.parameters(), lr=0.01))
    for x, y, _ in ctx.steps(samples(), 32, 3):
        loss = F.cross_entropy(model(x), y)
        ctx.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        ctx.report(loss=loss)


def test_sharded_ranks_do_as_one_whole_rank_and_share_checkpoints_with_it(tmp_path):
    losses = metric(launch(sharded, 1, tmp_path / "whole", False), "loss")
    four = launch(sharded, 4, tmp_path, every=6)
    assert checkpoints(four) == ["checkpoints/gen-0/step-6", "checkpoints/gen-0/step-12"]
    assert metric(four, "loss") == pytest.approx(losses, rel=1e-4)
    rest = pytest.approx({step: losses[step] for step in range(7, 16)}, rel=1e-4)
    for world_size, shard in ((2, True), (1, False)):
        late = launch(sharded, world_size, tmp_path, shard, generation=1, resume="checkpoints/gen-0/step-6")
        assert [rank.ended for rank in late] == ["returned"] * world_size, late[0].value
        assert metric(late, "loss") == rest


def test_ranks_need_the_same_number_of_micro_batches(tmp_path):
    ranks = launch(sharded, 3, tmp_path)
    assert [rank.ended for rank in ranks] == ["raised UsageError"] * 3
    assert "4 shards for 3 ranks; pass a shards= that" in ranks[0].value
