"""Running statistics of BatchNorm and similar layers, independent of how shards are spread over ranks.

Every shard starts from the step's statistics; the changes are averaged over all shards and applied once per step.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


class RunningStatistics:
    """The running means, variances and counts of prepared models; models without such layers cost nothing."""

    def __init__(self) -> None:
        self._buffers: list[torch.Tensor] = []
        self._before: list[torch.Tensor] = []
        self._change: list[torch.Tensor] = []
        self.synchronized = False
        """Whether a module communicates with the other ranks in its forward pass."""

    def add(self, net: nn.Module) -> None:
        """Track the statistics of a model."""
        self._buffers += tracked(net)
        self.synchronized |= any(isinstance(module, nn.SyncBatchNorm) for module in net.modules())

    def begin_step(self) -> None:
        """Remember the statistics that all shards of this step start from."""
        self._before = [buffer.clone() for buffer in self._buffers]
        self._change = [torch.zeros_like(buffer, dtype=torch.float32) for buffer in self._buffers]

    def end_shard(self, share: float) -> None:
        """Record the changes of a shard with this share of the batch, and restore the step's starting statistics."""
        for buffer, before, change in zip(self._buffers, self._before, self._change, strict=True):
            change.add_(buffer - before, alpha=share)
            buffer.copy_(before)

    def end_step(self) -> None:
        """Apply the mean change over all shards of all ranks."""
        if not self._buffers:
            return
        if dist.is_initialized() and dist.get_world_size() > 1:
            self._reduce()
        for buffer, change in zip(self._buffers, self._change, strict=True):
            buffer.add_(change if buffer.is_floating_point() else change.round().to(buffer.dtype))

    def _reduce(self) -> None:
        flat = torch.cat([change.flatten() for change in self._change])
        dist.all_reduce(flat)
        parts = flat.split([change.numel() for change in self._change])
        for change, part in zip(self._change, parts, strict=True):
            change.copy_(part.view_as(change))


def tracked(net: nn.Module) -> list[torch.Tensor]:
    """Return the statistics of a model's normalization layers."""
    return [
        buffer
        for module in net.modules()
        if isinstance(module, _NormBase)
        for buffer in (module.running_mean, module.running_var, module.num_batches_tracked)
        if buffer is not None
    ]
