"""Accumulation: turns a rank's micro-batches into one optimizer step, without changes to the user's loop.

In `ctx.loop`, and with one shard, a micro-batch is a whole step: nothing is gated, and the code's own order of
backward passes, steps and cleared gradients counts.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from cnai.engine.training.gates import ONCE_PER_STEP, gate_class, gate_method, unwatch, watch
from cnai.engine.training.gradients import Gradients, average, mean, same_everywhere
from cnai.engine.training.manners import Manners
from cnai.engine.training.normalization import Buffers
from cnai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from cnai.engine.training.shards import Micro


class Accumulation:
    """Lets prepared objects take effect once per step, and scales losses to the mean of the global batch."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._boundary = True
        self._shared = False
        """Whether a step has several micro-batches, in this rank or in others."""
        self._inside = False
        self._scale = self._share = 1.0
        self._nets: list[nn.Module] = []
        self._gated: list[Any] = []
        self._in_gated = 0
        self._compared: set[int] = set()
        self._stepped = self._steps = False
        """Whether an optimizer stepped in this step, and whether one ever did in this loop."""
        self._armed: dict[DistributedDataParallel, bool] = {}
        """Whether DDP sums the gradients of the next backward pass: the first one after each forward pass."""
        self._sharded: list[FSDPModule] = []
        self._without_sync = ExitStack()
        self._buffers = Buffers()
        self._buffers_ended = False
        self._gradients = Gradients(())
        self._manners = Manners(self._gradients, optimizers=0)

    @property
    def boundary(self) -> bool:
        """Whether prepared objects take effect now: True outside a loop and on the last micro-batch of a step."""
        self._manners.asked = True
        return self._boundary

    @property
    def unfinished(self) -> bool:
        """Whether gradients wait for an optimizer step in a later step of the loop; a checkpoint doesn't hold them."""
        waits = self._steps and not self._stepped
        return waits and any(each.grad is not None for each in self._gradients.parameters)

    def adopt(self, thing: Any) -> None:
        """Gate a prepared object."""
        if isinstance(thing, torch.optim.Optimizer):
            gate_method(thing, "step", partial(self._optimizer_step, thing))
            self._gated.append(thing)
        for kind, names in ONCE_PER_STEP.items():
            if isinstance(thing, kind):
                gate_class(thing, names, self._once_per_step)
                self._gated.append(thing)

    def adopt_model(self, model: nn.Module, net: nn.Module) -> None:
        """Register a model (`net`: as the user created it) to combine its gradients and buffers over the ranks."""
        if isinstance(model, DistributedDataParallel):
            self._armed[model] = False
            model.register_forward_pre_hook(self._arm)
        if isinstance(model, FSDPModule):
            self._sharded.append(model)
        self._nets.append(net)
        self._buffers.add(net)

    def check(self, shards: int, world_size: int) -> None:
        """Reject models that communicate in their forward pass if the ranks have unequal numbers of micro-batches."""
        communicates = self._sharded or self._buffers.synchronized
        if communicates and shards % world_size:
            raise UsageError(
                "FSDP and SyncBatchNorm need the same number of micro-batches in each rank; given:"
                f" {shards} shards for {world_size} ranks; pass a shards= that every planned number of ranks divides"
            )

    def enter(self, *, shared: bool) -> None:
        """Enter a loop whose steps have several micro-batches, in this rank or in others, or one."""
        self._shared = shared
        self._compared, self._steps = set(), False
        self._gradients = Gradients(each for net in self._nets for each in net.parameters())
        optimizers = sum(isinstance(thing, torch.optim.Optimizer) for thing in self._gated)
        self._manners = Manners(self._gradients, optimizers=optimizers)
        if shared:
            self._gradients.take_hooks()
        watch(self)

    def begin(self, micro: Micro, world_size: int) -> None:
        """Enter a micro-batch; the ranks sum their gradients only on the last micro-batch of a step."""
        self._share = micro.share
        if micro.first:
            self._stepped = False
            if self._averages:
                self._buffers.begin_step()
            if not micro.last:
                for model in self._armed:
                    self._without_sync.enter_context(model.no_sync())
        if micro.last:
            self._without_sync.close()
        for sharded in self._sharded:
            sharded.set_requires_gradient_sync(micro.last)
        self._boundary, self._inside, self._buffers_ended = micro.last, True, False
        self._scale = micro.share * world_size if self._shared else 1.0  # DDP and FSDP divide by the number of ranks
        self._manners.begin(first=micro.first, last=micro.last)

    def end(self, micro: Micro) -> None:
        """Leave a micro-batch."""
        self._inside = False
        if self._shared:
            self._manners.end()
        if not self._buffers_ended or not self._shared:
            self._end_buffers()
        elif micro.last:
            self._buffers.forget_forward()
        else:
            self._buffers.restore()
        if not micro.last:
            self._gradients.drop()
        elif self._manners.first_step:
            self._compare("weights", self._gradients.parameters)
            self._manners.first_step = False

    def leave(self) -> None:
        """Leave the loop, possibly in the middle of a step."""
        unwatch(self)
        self._without_sync.close()
        self._gradients.return_hooks()
        self._boundary, self._inside, self._shared, self._scale = True, False, False, 1.0

    def backward(self, loss: torch.Tensor, **options: Any) -> None:
        """Add the gradients of a micro-batch's mean loss, scaled to the micro-batch's share of the global batch."""
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise UsageError(
                "ctx.backward takes the mean loss of the micro-batch, a tensor with one element that depends on"
                f" the model; given: {_describe(loss)}"
            )
        scaled = None if self._scale == 1.0 else torch.full_like(loss, self._scale)
        if not (self._inside and self._shared):
            self._differentiate(partial(loss.backward, scaled, **options))
            return
        self._manners.before_backward()
        self._gradients.show()
        self._differentiate(partial(loss.backward, scaled, **options))
        if self._boundary:
            self._gradients.call_hooks()
        else:
            self._gradients.hide()

    def before_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Refuse an optimizer of prepared weights that is not prepared itself."""
        if self._inside and not any(optimizer is each for each in self._gated):
            alone = self._shared and not self._manners.optimizers
            if alone or self._is_ours(optimizer):
                _refuse_unprepared(optimizer)

    def before_other(self, thing: Any, subject: Any) -> None:
        """Refuse a scheduler, scaler or average of prepared objects that is not prepared itself."""
        if not self._inside or self._in_gated or any(thing is each for each in self._gated):
            return
        if self._is_ours(subject):
            _refuse_unprepared(thing)

    def _is_ours(self, subject: Any) -> bool:
        ours = {id(parameter) for parameter in self._gradients.parameters}
        if isinstance(subject, torch.optim.Optimizer):
            return any(id(each) in ours for group in subject.param_groups for each in group["params"])
        return isinstance(subject, torch.nn.Module) and any(id(each) in ours for each in subject.parameters())

    def _arm(self, model: DistributedDataParallel, _: Any) -> None:
        self._armed[model] = torch.is_grad_enabled() and model.require_backward_grad_sync

    def _differentiate(self, backward: Callable[[], None]) -> None:
        """Call `backward`, and average over the ranks what DDP leaves to itself, as a second backward pass."""
        left = [model for model, armed in self._armed.items() if not armed and model.require_backward_grad_sync]
        backward()
        if left and dist.get_world_size() > 1:
            average(each for model in left for each in model.parameters())
        self._armed = dict.fromkeys(self._armed, False)

    def _optimizer_step(self, optimizer: Any, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        closure = args[0] if args else kwargs.get("closure")
        if closure is not None:
            return self._closure_step(optimizer, step, closure)
        if not self._inside:
            return step(*args, **kwargs)
        return step(*args, **kwargs) if self._ready(optimizer) else None

    def _closure_step(self, optimizer: Any, step: Callable[..., Any], closure: Callable[[], Any]) -> Any:
        calls = 0

        def compute() -> Any:
            nonlocal calls
            calls += 1
            if self._inside and self._shared and calls > 1:
                raise UsageError(
                    f"{type(optimizer).__name__} computes the loss several times per step, but a micro-batch of"
                    " ctx.steps is a part of the batch; use ctx.loop(total_steps), or shards=1 and one rank"
                )
            loss = closure()
            if self._inside:
                self._ready(optimizer)
            return mean(loss)  # all ranks must take the same decisions

        if self._boundary:
            return step(compute)
        with torch.enable_grad():
            return compute()

    def _ready(self, optimizer: Any) -> bool:
        """Prepare for the step of an optimizer, and tell whether it may take effect."""
        if self._shared:
            self._manners.before_step()
        self._stepped = self._steps = True
        self._end_buffers()
        if self._boundary and id(optimizer) not in self._compared:
            self._compared.add(id(optimizer))
            self._compare("gradients", [each.grad for group in optimizer.param_groups for each in group["params"]])
        return self._boundary

    @property
    def _averages(self) -> bool:
        """Whether a step has parts, in this rank or in others."""
        return self._shared or self._share < 1.0

    def _end_buffers(self) -> None:
        if not self._averages or (self._shared and self._buffers_ended):
            return
        self._buffers_ended = True
        self._buffers.end_shard(self._share)
        if self._boundary:
            self._buffers.end_step()

    def _compare(self, kind: str, tensors: list[Any]) -> None:
        """Refuse code whose ranks drift apart, in the first step."""
        if not tensors or not dist.is_initialized() or dist.get_world_size() == 1:
            return
        if not same_everywhere(tensors, self._device):
            raise UsageError(
                f"the ranks have different {kind} in their first step; call the model that ctx.prepare returned,"
                " then ctx.backward(loss), and change weights or gradients by hand only with numbers that are the"
                " same in all ranks"
            )

    def _once_per_step(self, method: Callable[..., Any], thing: Any, *args: Any, **kwargs: Any) -> Any:
        if self._inside and isinstance(thing, torch.amp.GradScaler) and method.__name__ == "step":
            if self._shared:
                self._manners.before_step()
            self._stepped = self._steps = True
            self._end_buffers()
        if not self._boundary:
            return None
        self._in_gated += 1
        try:
            return method(thing, *args, **kwargs)
        finally:
            self._in_gated -= 1


def _refuse_unprepared(thing: Any) -> None:
    raise UsageError(
        f"{type(thing).__name__} is not prepared; pass it to ctx.prepare as well, so that it takes effect once per"
        " step and is saved in checkpoints"
    )


def _describe(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return f"{type(value).__name__}"
    return f"a tensor of shape {tuple(value.shape)}" + ("" if value.requires_grad else " without a gradient")
