"""Buffers that a forward pass changes, such as running statistics, independent of how shards are spread over ranks.

Every shard starts from the step's buffers; the changes are averaged over all shards and applied once per step, when
the code calls `optimizer.step()`: code behind it evaluates with the buffers of the finished step.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.swa_utils import AveragedModel


class Buffers:
    """The buffers of prepared models; buffers that nothing changes cost one comparison."""

    def __init__(self) -> None:
        self._all: list[_Buffer] = []
        self._changed: list[_Buffer] = []
        self.synchronized = False
        """Whether a module communicates with the other ranks in its forward pass."""

    def add(self, net: nn.Module) -> None:
        """Track the buffers of a model, unless the model is an average, which no forward pass changes."""
        self.synchronized |= any(isinstance(module, nn.SyncBatchNorm) for module in net.modules())
        if not isinstance(net, AveragedModel):
            self._all += [_Buffer(module, name) for module in net.modules() for name in module._buffers]

    def begin_step(self) -> None:
        """Remember the values that all shards of this step start from."""
        for buffer in self._all:
            buffer.begin()
        self._changed = []

    @torch.no_grad()
    def end_shard(self, share: float) -> None:
        """Record the changes of a shard with this share of the batch, and restore the step's starting values."""
        for buffer in self._all:
            if buffer.record(share):
                self._changed.append(buffer)

    @torch.no_grad()
    def end_step(self) -> None:
        """Apply the mean change over all shards of all ranks."""
        changed = list(dict.fromkeys(self._changed))
        if changed and dist.is_initialized() and dist.get_world_size() > 1:
            _reduce([buffer.change for buffer in changed if buffer.change is not None])
        for buffer in changed:
            buffer.apply()
        self._changed = []

    @torch.no_grad()
    def restore(self) -> None:
        """Undo changes after the end of a shard."""
        for buffer in self._all:
            buffer.restore()

    @torch.no_grad()
    def forget_forward(self) -> None:
        """Undo the changes of forward passes after the step, which would depend on the number of ranks."""
        for buffer in self._all:
            buffer.forget_forward()


class _Buffer:
    """A buffer of a module, found by its name because code may replace it."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self._owner, self._name = module._buffers, name
        # The kernels of normalization layers write without raising a tensor's version.
        self._uncounted = isinstance(module, _NormBase)
        self._before = torch.empty(0)
        self._seen: tuple[torch.Tensor | None, int] = None, -1
        self.change: torch.Tensor | None = None

    def begin(self) -> None:
        self.change = None
        now = self._owner.get(self._name)
        if now is not None and (self._uncounted or self._written(now)):
            self._before = now.detach().clone()
            self._seen = now, now._version

    def record(self, share: float) -> bool:
        """Add the change of a shard and restore the starting value; tell whether there was a change."""
        if (now := self._changed()) is None:
            return False
        change = (_number(now) - _number(self._before)).mul_(share)
        self.change = change if self.change is None else self.change.add_(change)
        self._write(now)
        return True

    def restore(self) -> None:
        if (now := self._changed()) is not None:
            self._write(now)

    def _changed(self) -> torch.Tensor | None:
        now = self._owner.get(self._name)
        if now is None or now.shape != self._before.shape or not (self._uncounted or self._written(now)):
            return None
        return now

    def apply(self) -> None:
        now = self._owner[self._name]
        assert now is not None
        assert self.change is not None
        change = self.change if now.is_floating_point() else self.change.round()
        self._before, self.change = (_number(self._before) + change).to(now.dtype), None
        self._write(now)

    def forget_forward(self) -> None:
        now = self._owner.get(self._name)
        if self._uncounted and now is not None and not self._written(now):
            self._write(now)

    def _written(self, now: torch.Tensor) -> bool:
        tensor, version = self._seen
        return now is not tensor or now._version != version

    def _write(self, now: torch.Tensor) -> None:
        now.copy_(self._before)
        self._seen = now, now._version


def _number(tensor: torch.Tensor) -> torch.Tensor:
    """Return the values in a type in which a small change of a counter, a flag or a half-precision number is exact."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32) if tensor.is_floating_point() else torch.float64)


def _reduce(changes: list[torch.Tensor]) -> None:
    flat = torch.cat([change.flatten() for change in changes])
    dist.all_reduce(flat)
    for change, part in zip(changes, flat.split([change.numel() for change in changes]), strict=True):
        change.copy_(part.view_as(change))
