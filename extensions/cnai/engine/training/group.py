"""Group: a rank's device, and the default process group that it shares with the other ranks."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from cnai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnai.engine.link import Link

CONTEXT_SECONDS = 120.0
"""Limit of one collective in the context's groups, if the run has no limit."""
_DEFAULTS = ("default_pg_timeout", "default_pg_nccl_timeout")


def device_of(local_rank: int) -> torch.device:
    """Return the device on which a rank computes: a GPU of its own where the node has GPUs. Raises UsageError."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= (count := torch.cuda.device_count()):
        raise UsageError(
            f"local rank {local_rank} has no GPU of its own; the node has {count}: start at most {count} ranks per node"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def timeout_of(link: Link) -> timedelta:
    """Return the limit of one collective of the context's groups."""
    given = link.assignment.timeout_seconds
    return timedelta(seconds=CONTEXT_SECONDS if given is None else given)


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Limit the collectives of groups that the code creates without a timeout; None keeps torch's own limits.

    torch reads the defaults of groups and device meshes from these names of its module at each call.
    """
    names: dict[str, Any] = vars(distributed_c10d)
    before = {name: names[name] for name in _DEFAULTS}
    if seconds is not None:
        names.update(dict.fromkeys(_DEFAULTS, timedelta(seconds=seconds)))
    try:
        yield
    finally:
        names.update(before)


def join(link: Link | None) -> bool:
    """Create the default process group if it is needed and doesn't exist; tell whether this call created it."""
    if dist.is_initialized():
        return False
    options: dict[str, Any] = {"backend": "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "cpu:gloo"}
    if link is not None:
        options["timeout"] = timeout_of(link)
    if "RANK" in os.environ and "MASTER_ADDR" in os.environ:
        dist.init_process_group(**options)
        return True
    if link is not None:  # a single rank whose process no agent started
        dist.init_process_group(**options, store=torch._C._distributed_c10d.HashStore(), rank=0, world_size=1)
        return True
    return False
