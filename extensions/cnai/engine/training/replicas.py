"""Replicas: keeps models and data equal in all ranks."""

from __future__ import annotations

from inspect import signature
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Replicate
from torch.nn.parallel import DistributedDataParallel

from cnai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


# The option's name since torch 2.15; the old name warns.
_SYNC_BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)


def wrap(net: nn.Module, device: torch.device, options: Mapping[str, Any]) -> DistributedDataParallel:
    """Wrap a model in DDP, which averages its gradients; its buffers are averaged over the shards instead."""
    given = {"device_ids": [device] if device.type == "cuda" else None, _SYNC_BUFFERS: False, **options}
    return DistributedDataParallel(net, **given)


def replicate(net: nn.Module, device: torch.device) -> None:
    """Give all ranks rank 0's weights and buffers, as DDP does; all ranks must call this.

    The process group must be able to send from `device`.
    """
    with torch.no_grad():
        for tensor in chain(net.parameters(), net.buffers()):
            if tensor.is_meta:  # has no values yet
                continue
            if isinstance(tensor, DTensor):
                _replicate_shard(tensor, device)
            elif type(tensor.detach()) is torch.Tensor:  # quantized weights and the like can't be sent
                _broadcast(tensor, device, None)


def require_same(data: str) -> None:
    """Reject data that differs between ranks: a step would see some samples twice and others never."""
    if not dist.is_initialized():
        return
    everywhere = [""] * dist.get_world_size()
    dist.all_gather_object(everywhere, data)
    if other := [rank for rank, theirs in enumerate(everywhere) if theirs != everywhere[0]]:
        raise UsageError(
            f"rank {other[0]} has different data than rank 0; seed the code that draws or splits the data, for example"
            " with torch.manual_seed(0)"
        )


def _replicate_shard(tensor: DTensor, device: torch.device) -> None:
    """Give all ranks that hold the same shard the values of the first of these ranks."""
    for dimension, placement in enumerate(tensor.placements):
        if isinstance(placement, Replicate):
            _broadcast(tensor.to_local(), device, tensor.device_mesh.get_group(dimension))


def _broadcast(tensor: torch.Tensor, device: torch.device, group: dist.ProcessGroup | None) -> None:
    sent = tensor.detach().to(device).contiguous()
    dist.broadcast(sent, group=group, group_src=0)
    tensor.copy_(sent)
