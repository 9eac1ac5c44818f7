"""Metrics of a window of steps, laid out so that one all_reduce(SUM) yields their means over all ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from cnai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Publish = Callable[[int, dict[str, float]], None]
    Held = dict[tuple[int, str], list[float]]


@dataclass(frozen=True)
class Layout:
    """The order of a window's numbers: for each step after `base` and each name, a weighted sum and its weight."""

    base: int
    steps: int
    names: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Return how many numbers the window has."""
        return 2 * self.steps * len(self.names)

    def publish(self, numbers: Sequence[float], publish: Publish) -> None:
        """Publish the means of each step that has reports."""
        names, each = self.names, 2 * len(self.names)
        for row in range(self.steps):
            pairs = zip(names, numbers[row * each : (row + 1) * each : 2], numbers[row * each + 1 :: 2], strict=False)
            if means := {name: total / weight for name, total, weight in pairs if weight}:
                publish(self.base + row + 1, means)


class Ledger:
    """This rank's reports since the last exchange.

    Holds back reports under new names until all ranks know the names. Reads numbers on a GPU only when the window is
    sent, so that `add` never waits for the device.
    """

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self.held: Held = {}
        self.open(0, 1)

    def open(self, base: int, steps: int) -> None:
        """Start the window of `steps` steps after `base`."""
        self.layout = Layout(base, steps, tuple(self._slots))
        self._numbers = [0.0] * self.layout.size
        self._on_device: list[tuple[int, torch.Tensor]] = []

    def learn(self, names: Iterable[str]) -> None:
        """Add names that all ranks now know; they take effect with the next window."""
        for name in sorted(set(names) - self._slots.keys()):
            self._slots[name] = len(self._slots)

    def add(self, step: int, values: Mapping[str, object], weight: float) -> None:
        """Add values of a micro-batch of `step`."""
        width, row = len(self.layout.names), step - self.layout.base - 1
        for name, value in values.items():
            amount = number(name, value)
            slot = self._slots.get(name, width)
            if slot >= width or row >= self.layout.steps:
                entry = self.held.setdefault((step, name), [0.0, 0.0])
                entry[0] += float(amount) * weight
                entry[1] += weight
                continue
            place = 2 * (row * width + slot)
            self._numbers[place + 1] += weight
            if isinstance(amount, torch.Tensor):
                self._on_device.append((place, amount * weight))
            else:
                self._numbers[place] += amount * weight

    def numbers(self) -> list[float]:
        """Return the window's numbers; waits for the device if some are still on it."""
        if self._on_device:
            late = torch.stack([tensor.float() for _, tensor in self._on_device]).tolist()
            for (place, _), value in zip(self._on_device, late, strict=True):
                self._numbers[place] += value
            self._on_device = []
        return self._numbers


def publish_held(helds: Iterable[Held], publish: Publish) -> set[str]:
    """Publish the means of the reports that the ranks held back, and return their names."""
    sums: Held = {}
    for held in helds:
        for key, (total, weight) in held.items():
            entry = sums.setdefault(key, [0.0, 0.0])
            entry[0] += total
            entry[1] += weight
    for step in sorted({step for step, _ in sums}):
        publish(step, {name: total / weight for (at, name), (total, weight) in sums.items() if at == step})
    return {name for _, name in sums}


def number(name: str, value: Any) -> float | torch.Tensor:
    """Return a float, or the tensor itself if reading it would wait for a GPU."""
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise UsageError(
                f"ctx.report takes numbers and tensors with one element; given: {name} of shape {tuple(value.shape)};"
                f" report {name}.mean() or the like"
            )
        return value.item() if value.device.type == "cpu" else value.detach().reshape(())
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UsageError(
            f"ctx.report takes numbers and tensors with one element; given: {name}={value!r:.60}"
        ) from None
