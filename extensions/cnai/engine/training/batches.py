"""Batches: fetches a rank's micro-batches, from tensors directly or from a dataset through torch's DataLoader."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, Subset, TensorDataset

from cnai.engine.training.shards import mix
from cnai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnai.engine.training.shards import Micro, Plan

_OURS = ("batch_sampler", "drop_last", "sampler")
_SAMPLED = 16
"""How many samples, and how many values of each sample, a fingerprint covers."""


def length(dataset: Any) -> int:
    """Return the number of samples; raise UsageError if the object is not a usable dataset."""
    if isinstance(dataset, DataLoader):
        raise UsageError(
            "ctx.steps takes a dataset, not a DataLoader; pass loader.dataset, and its options such as num_workers=…"
        )
    if isinstance(dataset, (IterableDataset, Mapping)) or not (
        hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    ):
        raise UsageError(
            "ctx.steps takes a dataset with __len__ and __getitem__ or a tuple of tensors, because it needs random"
            f" access; given: {type(dataset).__name__}; read other data in ctx.loop(total_steps)"
        )
    tensors = columns(dataset)
    if tensors is None:
        return len(dataset)
    if len({len(tensor) for tensor in tensors}) != 1:
        raise UsageError(
            f"the tensors must have the same number of samples; given: {', '.join(str(len(each)) for each in tensors)}"
        )
    return len(tensors[0])


def fingerprint(dataset: Any) -> str:
    """Return a short hash that differs for different tensors and different subsets; "" for other datasets."""
    if isinstance(dataset, Subset):
        identity = f"{list(dataset.indices)}{fingerprint(dataset.dataset)}"
    elif (tensors := columns(dataset)) is not None:
        rows = torch.linspace(0, len(tensors[0]) - 1, _SAMPLED).long()
        identity = str([[row.flatten()[:_SAMPLED].tolist() for row in each[rows.to(each.device)]] for each in tensors])
    else:
        return ""
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def columns(dataset: Any) -> tuple[torch.Tensor, ...] | None:
    """Return the tensors that a dataset consists of, None if it is another kind of dataset."""
    if isinstance(dataset, torch.Tensor):
        return (dataset,)
    if type(dataset) is TensorDataset:
        return dataset.tensors
    if isinstance(dataset, tuple) and dataset and all(isinstance(each, torch.Tensor) for each in dataset):
        return dataset
    return None


def fetch(
    dataset: Any, plan: Plan, done: int, rank: int, world_size: int, device: torch.device, loader: dict[str, Any]
) -> Iterator[tuple[Micro, Any]]:
    """Yield a rank's micro-batches after the first `done` steps, on `device`."""
    if wrong := [key for key in _OURS if key in loader]:
        raise UsageError(
            f"ctx.steps chooses the samples itself; leave out {', '.join(wrong)} (shuffle=False keeps the order)"
        )
    tensors = columns(dataset)
    if tensors is not None and not loader:
        return _index(tensors, plan, done, rank, world_size, device, alone=isinstance(dataset, torch.Tensor))
    if tensors is not None:
        dataset = dataset if isinstance(dataset, torch.Tensor) else TensorDataset(*tensors)
    return _load(dataset, plan, done, rank, world_size, device, loader)


def _index(
    tensors: tuple[torch.Tensor, ...],
    plan: Plan,
    done: int,
    rank: int,
    world_size: int,
    device: torch.device,
    *,
    alone: bool,
) -> Iterator[tuple[Micro, Any]]:
    """Gather all micro-batches of a step at once: the number of torch calls dominates the cost of a small step."""
    for micros in plan.steps(done, rank, world_size):
        index = plan.order(micros[0].epoch)[micros[0].start : micros[-1].stop]
        sizes = [micro.stop - micro.start for micro in micros]
        mine = [
            tensor.index_select(0, index.to(tensor.device)).to(device, non_blocking=True).split(sizes)
            for tensor in tensors
        ]
        for micro, *batch in zip(micros, *mine, strict=True):
            yield micro, batch[0] if alone else tuple(batch)


def _load(
    dataset: Any, plan: Plan, done: int, rank: int, world_size: int, device: torch.device, loader: dict[str, Any]
) -> Iterator[tuple[Micro, Any]]:
    options = {"pin_memory": device.type == "cuda", **loader}
    batches = DataLoader(_Seeded(dataset), batch_sampler=_Sampler(plan, done, rank, world_size), **options)
    micros = (micro for step in plan.steps(done, rank, world_size) for micro in step)
    for micro, batch in zip(micros, batches, strict=True):
        yield micro, batch if device.type == "cpu" else _move(batch, device)


class _Sampler(Sampler[Any]):
    """Yields the indices of each micro-batch together with the seed for fetching its samples."""

    def __init__(self, plan: Plan, done: int, rank: int, world_size: int) -> None:
        self._plan, self._done, self._rank, self._world_size = plan, done, rank, world_size

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        for micros in self._plan.steps(self._done, self._rank, self._world_size):
            for micro in micros:
                indices = self._plan.order(micro.epoch)[micro.start : micro.stop].tolist()
                yield mix(self._plan.random_seed(micro), 1), indices  # must differ from the seed of the model's dropout


class _Seeded(Dataset[Any]):
    """Seeds before fetching, so that augmentation is the same whichever process fetches the samples."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getitems__(self, given: tuple[int, list[int]]) -> Any:
        seed, indices = given
        seed_everything(seed)
        if hasattr(self._dataset, "__getitems__"):
            return self._dataset.__getitems__(indices)
        return [self._dataset[index] for index in indices]


def seed_everything(seed: int) -> None:
    """Seed the generators that augmentation may use: torch's on the CPU, Python's, and NumPy's if loaded."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed & 0xFFFFFFFF)


def _move(batch: Any, device: torch.device) -> Any:
    """Return the batch with its tensors on the device, in the structure that the collate function returned."""
    if hasattr(batch, "to"):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: _move(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_move(value, device) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(_move(value, device) for value in batch)
    return batch
