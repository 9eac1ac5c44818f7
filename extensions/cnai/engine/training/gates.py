"""Gates: prepared objects take effect once per step; other objects of these kinds are refused, by name."""

from __future__ import annotations

from functools import update_wrapper
from types import MethodType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.optim.swa_utils import AveragedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Methods that take effect only on the last micro-batch of a step. Optimizers have their own rules.
ONCE_PER_STEP: dict[type, tuple[str, ...]] = {
    LRScheduler: ("step",),
    AveragedModel: ("update_parameters",),
    torch.amp.GradScaler: ("step", "update", "unscale_"),
}


def gate_method(thing: Any, name: str, gate: Callable[..., Any]) -> None:
    """Replace a method of one object with `gate(method, …)`.

    The replacement is a bound method, because schedulers wrap `optimizer.step` again.
    """
    method = getattr(thing, name)

    def gated(_: Any, *args: Any, **kwargs: Any) -> Any:
        return gate(method, *args, **kwargs)

    setattr(thing, name, MethodType(update_wrapper(gated, method), thing))


def gate_class(thing: Any, names: tuple[str, ...], gate: Callable[..., Any]) -> None:
    """Give one object gated methods through its own subclass.

    As instance attributes the methods would end up in a scheduler's `state_dict`.
    """
    kind = type(thing)

    def gated(method: Callable[..., Any]) -> Callable[..., Any]:
        return update_wrapper(lambda self, *args, **kwargs: gate(method, self, *args, **kwargs), method)

    thing.__class__ = type(kind.__name__, (kind,), {name: gated(getattr(kind, name)) for name in names})


class Watcher(Protocol):
    """A loop that hears of objects before they take effect, whether it prepared them or not."""

    def before_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Hear that an optimizer is about to step."""

    def before_other(self, thing: Any, subject: Any) -> None:
        """Hear that a scheduler, scaler or average is about to change its optimizer, or to read its model."""


_watchers: list[Watcher] = []
_watched: set[tuple[type, str]] = set()


def watch(watcher: Watcher) -> None:
    """Tell `watcher` from now on until `unwatch`."""
    if not _watched:
        register_optimizer_step_pre_hook(lambda optimizer, *_: _tell_of_optimizer(optimizer))
    for base, names in ONCE_PER_STEP.items():
        for kind in _with_subclasses(base):
            # Classes of others can travel with results, and what they hold travels with them.
            if kind.__module__.startswith("torch."):
                _wrap(kind, names)
    _watchers.append(watcher)


def unwatch(watcher: Watcher) -> None:
    """Tell `watcher` no more."""
    if watcher in _watchers:
        _watchers.remove(watcher)


def _tell_of_optimizer(optimizer: torch.optim.Optimizer) -> None:
    for watcher in _watchers:
        watcher.before_optimizer(optimizer)


def _wrap(kind: type, names: tuple[str, ...]) -> None:
    for name in names:
        if name in vars(kind) and (kind, name) not in _watched:
            _watched.add((kind, name))
            setattr(kind, name, _telling(vars(kind)[name]))


def _telling(method: Callable[..., Any]) -> Callable[..., Any]:
    def telling(self: Any, *args: Any, **kwargs: Any) -> Any:
        subject = self.optimizer if isinstance(self, LRScheduler) else next(iter([*args, *kwargs.values()]), None)
        for watcher in _watchers:
            watcher.before_other(self, subject)
        return method(self, *args, **kwargs)

    return update_wrapper(telling, method)


def _with_subclasses(kind: type) -> Iterator[type]:
    yield kind
    subclasses: list[type] = kind.__subclasses__()
    for each in subclasses:
        yield from _with_subclasses(each)
