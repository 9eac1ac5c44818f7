"""Accumulation: turns a rank's micro-batches into one optimizer step, without changes to the user's loop."""

from __future__ import annotations

from contextlib import ExitStack
from functools import update_wrapper
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from cnai.engine.training.normalization import RunningStatistics
from cnai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnai.engine.training.shards import Micro

# Methods that take effect only on the last micro-batch of a step. Optimizers have their own rules.
_ONCE_PER_STEP: dict[type, tuple[str, ...]] = {
    LRScheduler: ("step",),
    AveragedModel: ("update_parameters",),
    torch.amp.GradScaler: ("step", "update", "unscale_"),
}


class Accumulation:
    """Lets prepared objects take effect once per step, and scales losses to the mean of the global batch."""

    def __init__(self) -> None:
        self.boundary = True
        """Whether prepared objects take effect now: True outside a loop and on the last micro-batch of a step."""
        self._inside = False
        self._pending = False
        self._backwards = 0
        self._scale = 1.0
        self._parameters: list[nn.Parameter] = []
        self._witness: nn.Parameter | None = None
        self._optimizers = 0
        self._wrapped: list[DistributedDataParallel] = []
        self._sharded: list[FSDPModule] = []
        self._without_sync = ExitStack()
        self._statistics = RunningStatistics()

    def adopt(self, thing: Any) -> None:
        """Gate a prepared object."""
        if isinstance(thing, torch.optim.Optimizer):
            self._optimizers += 1
            self._parameters += [parameter for group in thing.param_groups for parameter in group["params"]]
            _gate_method(thing, "step", self._optimizer_step)
            _gate_method(thing, "zero_grad", self._zero_grad)
        for kind, names in _ONCE_PER_STEP.items():
            if isinstance(thing, kind):
                _gate_class(thing, names, self._once_per_step)

    def adopt_model(self, model: nn.Module, net: nn.Module) -> None:
        """Register a model (`net`: as the user created it) to combine its gradients and statistics over the ranks."""
        if isinstance(model, DistributedDataParallel):
            self._wrapped.append(model)
        if isinstance(model, FSDPModule):
            self._sharded.append(model)
        self._statistics.add(net)

    def check(self, shards: int, world_size: int) -> None:
        """Reject models that communicate in their forward pass if the ranks have unequal numbers of micro-batches."""
        communicates = self._sharded or self._statistics.synchronized
        if communicates and shards % world_size:
            raise UsageError(
                "FSDP and SyncBatchNorm need the same number of micro-batches in each rank; given:"
                f" {shards} shards for {world_size} ranks; pass a shards= that every planned number of ranks divides"
            )

    def begin(self, micro: Micro, world_size: int) -> None:
        """Enter a micro-batch; the ranks sum their gradients only on the last micro-batch of a step."""
        if micro.first:
            self._pending = False
            self._statistics.begin_step()
            if not micro.last:
                for model in self._wrapped:
                    self._without_sync.enter_context(model.no_sync())
        if micro.last:
            self._without_sync.close()
        for sharded in self._sharded:
            sharded.set_requires_gradient_sync(micro.last)
        self.boundary, self._inside, self._backwards = micro.last, True, 0
        self._scale = micro.share * world_size  # DDP and FSDP divide by the number of ranks

    def end(self, micro: Micro) -> None:
        """Leave a micro-batch."""
        self._inside = False
        self._statistics.end_shard(micro.share)
        if micro.last:
            self._statistics.end_step()

    def leave(self) -> None:
        """Leave the loop, possibly in the middle of a step."""
        self._without_sync.close()
        self.boundary, self._inside, self._scale = True, False, 1.0

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a micro-batch's mean loss, scaled to the micro-batch's share of the global batch."""
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise UsageError(
                "ctx.backward takes the mean loss of the micro-batch, a tensor with one element that depends on"
                f" the model; given: {_describe(loss)}"
            )
        self._backwards += 1
        if self._inside:
            self._check_backward()
        loss.backward(None if self._scale == 1.0 else torch.full_like(loss, self._scale))
        self._pending = True
        if self._witness is None or self._witness.grad is None:
            self._witness = next((each for each in self._parameters if each.grad is not None), None)

    def _check_backward(self) -> None:
        if not self._optimizers:
            raise UsageError(
                "ctx.backward needs a prepared optimizer: model, optimizer = ctx.prepare(model, optimizer)"
            )
        if self._backwards > 1 and self._optimizers > 1:
            raise UsageError(
                "ctx.steps can't accumulate several backward passes for several optimizers; add up the losses"
                " and call ctx.backward once, or use ctx.loop(total_steps) with your own batches"
            )
        if self._pending and self._witness is not None and self._witness.grad is None:
            raise UsageError(
                "the gradients of this step's first micro-batches were cleared; in ctx.steps call zero_grad() of the"
                " prepared optimizer, which waits for the end of the step, instead of model.zero_grad()"
            )

    def _optimizer_step(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._inside and not self._backwards:
            raise UsageError(
                "optimizer.step() was called before ctx.backward(loss); in ctx.steps write ctx.backward(loss) instead"
                " of loss.backward()"
            )
        if not self.boundary:
            return None
        self._pending = False
        return step(*args, **kwargs)

    def _zero_grad(self, zero_grad: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        # Clears only before a step's first backward pass or after its optimizer step, so both places users put it work.
        if not (self._inside and self._pending):
            zero_grad(*args, **kwargs)

    def _once_per_step(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs) if self.boundary else None


def _gate_method(thing: Any, name: str, gate: Callable[..., Any]) -> None:
    """Replace a method of one object with `gate(method, …)`.

    The replacement is a bound method, because schedulers wrap `optimizer.step` again.
    """
    method = getattr(thing, name)

    def gated(_: Any, *args: Any, **kwargs: Any) -> Any:
        return gate(method, *args, **kwargs)

    setattr(thing, name, MethodType(update_wrapper(gated, method), thing))


def _gate_class(thing: Any, names: tuple[str, ...], gate: Callable[..., Any]) -> None:
    """Give one object gated methods through its own subclass.

    As instance attributes the methods would end up in a scheduler's `state_dict`.
    """
    kind = type(thing)

    def gated(method: Callable[..., Any]) -> Callable[..., Any]:
        return update_wrapper(lambda self, *args, **kwargs: gate(method, self, *args, **kwargs), method)

    thing.__class__ = type(kind.__name__, (kind,), {name: gated(getattr(kind, name)) for name in names})


def _describe(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return f"{type(value).__name__}"
    return f"a tensor of shape {tuple(value.shape)}" + ("" if value.requires_grad else " without a gradient")
