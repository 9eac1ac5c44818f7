"""Shards: decides which samples a step sees, and which rank works on them.

Laws:
1. The order of an epoch depends only on the seed and the epoch.
2. The steps of an epoch see each sample once, except that a last batch with fewer samples than shards is dropped.
3. The shards of a step are a fixed number of slices of its batch; none is empty, and their sizes differ by at most one.
4. The shards are divided over the ranks in order, and each rank gets at least one; so laws 1 to 3 hold for any number
   of ranks.
"""

from __future__ import annotations

import operator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from cnai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_SHARDS = 4
_WORD = (1 << 64) - 1


class Micro(NamedTuple):
    """One micro-batch of one rank: the samples `start` to `stop` of the epoch's order."""

    done: int
    """The number of steps of this loop before the current one."""
    epoch: int
    """Counts from 0."""
    shard: int
    start: int
    stop: int
    share: float
    """The fraction of the step's global batch in this micro-batch."""
    first: bool
    last: bool
    """Whether this micro-batch is the rank's first or last in this step."""
    ends_epoch: bool


def mix(*words: int) -> int:
    """Return a number of 63 well-mixed bits; torch's CPU generator uses only the lower 32 bits of a seed."""
    state = 0
    for word in words:  # splitmix64
        state = (state + word + 0x9E3779B97F4A7C15) & _WORD
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _WORD
        state ^= state >> 31
    return state >> 1


def part(total: int, parts: int, index: int) -> tuple[int, int]:
    """Return the start and stop of part `index` when `total` is cut into `parts` nearly equal parts."""
    return index * total // parts, (index + 1) * total // parts


def whole(name: str, value: Any, least: int | None = None) -> int:
    """Return a whole number as Python's own; NumPy's and torch's are accepted, booleans are not."""
    try:
        number = None if "bool" in str(getattr(value, "dtype", type(value))) else operator.index(value)
    except (TypeError, ValueError):  # torch raises ValueError for several elements
        number = None
    if number is None or (least is not None and number < least):
        allowed = "a whole number" if least is None else f"a whole number from {least}"
        raise UsageError(f"{name} must be {allowed}; given: {' '.join(repr(value).split()):.60}")
    return number


Identity = dict[str, int | str]
"""What a loop goes over, by the names of its arguments."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The steps of one loop over a dataset; the same for every rank and every number of ranks."""

    samples: int
    batch_size: int
    epochs: int
    shards: int
    shuffle: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("batch_size", "epochs", "shards"):
            whole(key, getattr(self, key), 1)
        if self.batch_size < self.shards:
            raise UsageError(
                f"batch_size counts the samples of all ranks together and must be at least shards ({self.shards});"
                f" given: {self.batch_size}"
            )
        if self.samples < self.shards:
            raise UsageError(
                f"the dataset must have at least as many samples as shards ({self.shards}); it has {self.samples}"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of steps in an epoch, including a last step with a smaller batch."""
        full, rest = divmod(self.samples, self.batch_size)
        return full + (rest >= self.shards)

    def identity(self) -> Identity:
        """Return the values that must not change when a run resumes from a checkpoint; `epochs` may change."""
        return {key: value for key, value in asdict(self).items() if key != "epochs"}

    def require(self, world_size: int) -> None:
        """Raise UsageError if there are more ranks than shards."""
        if world_size > self.shards:
            raise UsageError(
                f"{world_size} ranks can't share {self.shards} shards; start at most {self.shards} ranks, or pass"
                f" shards={world_size} or more to ctx.steps (at most {self.batch_size}, the batch_size)"
            )

    def order(self, epoch: int) -> torch.Tensor:
        """Return the indices of all samples in the order of an epoch."""
        return _order(self.samples, epoch, self.seed, self.shuffle)

    def random_seed(self, micro: Micro) -> int:
        """Return the seed for everything random in a micro-batch."""
        return mix(self.seed, micro.done, micro.shard)

    def steps(self, done: int, rank: int, world_size: int) -> Iterator[list[Micro]]:
        """Yield a rank's micro-batches of each step after the first `done`; they are adjacent in the epoch's order."""
        mine = range(*part(self.shards, world_size, rank))
        for index in range(done, self.epochs * self.steps_per_epoch):
            epoch, step = divmod(index, self.steps_per_epoch)
            begin = step * self.batch_size
            size = min(self.batch_size, self.samples - begin)
            yield [self._micro(index, epoch, shard, begin, size, mine) for shard in mine]

    def _micro(self, index: int, epoch: int, shard: int, begin: int, size: int, mine: range) -> Micro:
        start, stop = part(size, self.shards, shard)
        last = shard == mine[-1]
        return Micro(
            done=index,
            epoch=epoch,
            shard=shard,
            start=begin + start,
            stop=begin + stop,
            share=(stop - start) / size,
            first=shard == mine[0],
            last=last,
            ends_epoch=last and (index + 1) % self.steps_per_epoch == 0,
        )


@lru_cache(maxsize=2)  # two epochs, because loader workers fetch ahead into the next one
def _order(samples: int, epoch: int, seed: int, shuffle: bool) -> torch.Tensor:
    if not shuffle:
        return torch.arange(samples)
    return torch.randperm(samples, generator=torch.Generator().manual_seed(mix(seed, epoch, samples)))
