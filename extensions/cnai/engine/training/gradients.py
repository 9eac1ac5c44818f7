"""Gradients of a step's shards: they add up out of sight, so that code sees either zeros or the whole gradient.

So code that clips, unscales, clears or reads gradients after every `ctx.backward` works on the gradient of the whole
batch: before the last shard of a step whatever it does to the zeros has no effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    _Hooks = tuple[dict[int, Any], dict[int, Any]]
    """The dict that autograd calls, and the hooks that were in it."""


class Gradients:
    """The gradients of prepared models."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list({id(parameter): parameter for parameter in parameters}.values())
        self._aside: list[tuple[nn.Parameter, torch.Tensor]] = []
        self._zeros: list[tuple[nn.Parameter, torch.Tensor, int]] = []
        self._hooks: list[tuple[nn.Parameter, _Hooks, _Hooks]] = []

    @property
    def hooked(self) -> bool:
        """Whether parameters have hooks on their gradients."""
        return bool(self._hooks)

    @property
    def touched(self) -> bool:
        """Whether the zeros were cleared, replaced or written to."""
        return any(each.grad is not zero or zero._version != version for each, zero, version in self._zeros)

    @property
    def filled(self) -> bool:
        """Whether gradients were added to the zeros; reads the device."""
        return any(each.grad is not None and bool(each.grad.any()) for each, _, _ in self._zeros)

    @property
    def present(self) -> bool:
        """Whether the code sees gradients other than zero; reads the device."""
        return any(each.grad is not None and bool(each.grad.any()) for each in self.parameters)

    @property
    def versions(self) -> int:
        """A number that grows with each counted write to a parameter."""
        return sum(parameter._version for parameter in self.parameters)

    def show(self) -> None:
        """Bring back the sum of the shards so far."""
        for parameter, gradient in self._aside:
            parameter.grad = gradient
        self._aside, self._zeros = [], []

    def hide(self) -> None:
        """Put the sum of the shards so far aside; the code sees zeros."""
        self._aside = [(each, each.grad) for each in self.parameters if each.grad is not None]
        for parameter, gradient in self._aside:
            # FSDP has no gradient either before the last shard.
            parameter.grad = None if isinstance(gradient, DTensor) else torch.zeros_like(gradient)
        self._zeros = [(each, each.grad, each.grad._version) for each, _ in self._aside if each.grad is not None]

    def drop(self) -> None:
        """Forget the zeros; frees their memory for the next forward pass."""
        for parameter, _, _ in self._zeros:
            parameter.grad = None
        self._zeros = []

    def take_hooks(self) -> None:
        """Take the hooks off, because autograd would call them once per shard."""
        for parameter in self.parameters:
            on_gradient: Any = parameter._backward_hooks or {}
            after: Any = parameter._post_accumulate_grad_hooks or {}
            if on_gradient or after:
                self._hooks.append((parameter, (on_gradient, dict(on_gradient)), (after, dict(after))))
                on_gradient.clear()  # autograd keeps the dict itself, whatever the attribute becomes
                after.clear()

    def return_hooks(self) -> None:
        """Give the parameters their hooks back."""
        for _, *kinds in self._hooks:
            for hooks, taken in kinds:
                hooks.update(taken)
        self._hooks = []

    def call_hooks(self) -> None:
        """Call the hooks with the whole gradient, as autograd does with that of a whole batch."""
        for parameter, (_, on_gradient), (_, after) in self._hooks:
            if parameter.grad is None:
                continue
            for hook in on_gradient.values():
                changed = hook(parameter.grad)
                parameter.grad = parameter.grad if changed is None else changed
            for hook in after.values():
                hook(parameter)


def average(parameters: Iterable[nn.Parameter]) -> None:
    """Give all ranks the mean of their gradients; those that are equal already stay as they are."""
    gradients = [each.grad for each in parameters if each.grad is not None]
    if not gradients:
        return
    with torch.no_grad():
        flat = torch.cat([each.flatten() for each in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for gradient, part in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def mean(loss: Any) -> Any:
    """Return the mean of a loss over the ranks."""
    if not isinstance(loss, torch.Tensor) or not dist.is_initialized() or dist.get_world_size() == 1:
        return loss
    total = loss.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def same_everywhere(tensors: Iterable[torch.Tensor | None], device: torch.device) -> bool:
    """Tell whether all ranks have the same values, bit for bit; all ranks must call this."""
    sums = [torch.zeros((), dtype=torch.float64, device=device)]
    sums += [_sum(each, device) for each in tensors if not isinstance(each, DTensor)]
    ends = torch.stack([sign * each for sign in (1, -1) for each in sums])
    dist.all_reduce(ends, op=dist.ReduceOp.MAX)
    highest, lowest = ends.chunk(2)
    return torch.equal(highest, -lowest)


def _sum(tensor: torch.Tensor | None, device: torch.device) -> torch.Tensor:
    if tensor is None:
        return torch.full((), -1.0, dtype=torch.float64, device=device)
    values = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
    return values.abs().double().sum().nan_to_num().to(device)
