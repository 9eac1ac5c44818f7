import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from cnai.engine.training.batches import fetch, length
from cnai.engine.training.shards import Plan
from cnai.errors import UsageError

pytestmark = pytest.mark.usefixtures("starts_children")

CPU = torch.device("cpu")
PLAN = Plan(samples=30, batch_size=8, epochs=2, shards=4)


class Noisy(Dataset):
    """Augments with every generator that people use."""

    def __len__(self):
        return 30

    def __getitem__(self, index):
        return index, torch.rand(()), np.float32(np.random.rand()), random.random()


class Many(Dataset):
    """Fetches a batch at a time."""

    def __len__(self):
        return 30

    def __getitem__(self, index):
        raise AssertionError("one by one")

    def __getitems__(self, indices):
        return list(indices)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(30))


def drawn(dataset, world_size=1, done=0, **loader):
    """{(step, shard): batch} over all ranks."""
    return {
        (micro.done, micro.shard): batch
        for rank in range(world_size)
        for micro, batch in fetch(dataset, PLAN, done, rank, world_size, CPU, loader)
    }


def numbers(batches):
    return {key: [column.tolist() for column in batch] for key, batch in batches.items()}


def test_tensors_and_a_dataset_give_the_same_samples():
    x, y = torch.arange(30), torch.arange(30) * 2
    fast = drawn((x, y))
    assert numbers(fast) == numbers(drawn(TensorDataset(x, y)))
    assert numbers(fast) == numbers(drawn((x, y), num_workers=1))
    assert all(isinstance(batch, tuple) for batch in fast.values())
    for (step, shard), batch in drawn(x).items():
        assert torch.equal(batch, fast[step, shard][0])
    for key, batch in drawn(list(range(30))).items():
        assert torch.equal(batch, fast[key][0])
    for key, batch in drawn(Many()).items():
        assert torch.equal(batch, fast[key][0])


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_is_the_same_for_any_number_of_ranks_and_workers(world_size, workers):
    alone = numbers(drawn(Noisy()))
    shared = numbers(drawn(Noisy(), world_size, num_workers=workers))
    assert shared == alone
    assert len({tuple(batch[1]) for batch in alone.values()}) == len(alone), "each shard is augmented otherwise"


def test_a_loader_starts_in_the_middle():
    whole = numbers(drawn(Noisy()))
    assert numbers(drawn(Noisy(), 2, done=5)) == {key: batch for key, batch in whole.items() if key[0] >= 5}


def test_loader_keywords_are_passed_on():
    batches = drawn(list(range(30)), collate_fn=lambda numbers: {"most": max(numbers)})
    assert set(next(iter(batches.values()))) == {"most"}


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        (Stream(), r"given: Stream; read other data in ctx.loop\(total_steps\)"),
        (DataLoader([1, 2]), "not a DataLoader; pass loader.dataset"),
        ({"x": torch.ones(3)}, "given: dict"),
        (iter([1]), "given: list_iterator"),
        ((torch.ones(3), torch.ones(4)), "the tensors must have the same number of samples; given: 3, 4"),
    ],
)
def test_what_is_no_dataset(dataset, says):
    with pytest.raises(UsageError, match=says):
        length(dataset)


def test_loader_keywords_that_choose_samples():
    with pytest.raises(UsageError, match="leave out sampler"):
        drawn([1] * 30, sampler=[1])
