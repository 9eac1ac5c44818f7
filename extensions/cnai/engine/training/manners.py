"""Manners: refuses code in `ctx.steps` whose result would differ from that of the same loop over whole batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnai.errors import UsageError

if TYPE_CHECKING:
    from cnai.engine.training.gradients import Gradients


class Manners:
    """Notes what the code does in each micro-batch of a step; some checks read the device, in the first step only."""

    def __init__(self, gradients: Gradients, *, optimizers: int) -> None:
        self._gradients = gradients
        self.optimizers = optimizers
        self.first_step = True
        self.asked = False
        """Whether the code read `ctx.boundary` in this micro-batch."""
        self._first = self._last = True
        self._backwards = 0
        self._in_step = 0
        self._stepped = self._early = self._unfinished = False
        self._versions = 0

    def begin(self, *, first: bool, last: bool) -> None:
        """Note the beginning of a micro-batch."""
        self._first, self._last = first, last
        self._backwards, self._stepped, self.asked = 0, False, False
        self._versions = self._gradients.versions
        if first:
            self._in_step, self._early = 0, False

    def before_backward(self) -> None:
        """Note a backward pass of `ctx.backward`."""
        if not self.optimizers:
            raise UsageError(
                "ctx.backward needs a prepared optimizer: model, optimizer = ctx.prepare(model, optimizer)"
            )
        if self._first and not self._backwards and self._unfinished and self._gradients.present:
            _refuse("the last step ended with neither optimizer.step() nor zero_grad()", _WHOLE)
        if self.first_step and not self._first and not self._backwards and self._gradients.present:
            _refuse("loss.backward() was called", "write ctx.backward(loss) instead")
        if not self._backwards and not self._last:
            self._check_weights()
        if self._backwards and (self._stepped or self._changed or self._gradients.touched):
            _refuse("weights or gradients were changed between two backward passes of a step", _LOOP)
        if self._backwards and self._gradients.hooked:
            _refuse("parameters with hooks have several backward passes in a step", _LOOP)
        self._backwards += 1
        self._in_step += 1
        self._versions = self._gradients.versions

    def before_step(self) -> None:
        """Note a call of `optimizer.step()` or `scaler.step(optimizer)`, whether it takes effect or not."""
        if not self._backwards:
            raise UsageError(
                "optimizer.step() was called before ctx.backward(loss); in ctx.steps write ctx.backward(loss) instead"
                " of loss.backward()"
            )
        self._stepped = True
        self._early |= not self._last

    def end(self) -> None:
        """Note the end of a micro-batch."""
        if self._last:
            self._end_step()
            return
        self._check_weights()
        if not self.first_step:
            return
        if self._gradients.filled:
            _refuse(
                "gradients were written by something other than ctx.backward(loss)",
                "write ctx.backward(loss), and what changes gradients under `if ctx.boundary:`",
            )
        if self._backwards and not (self._stepped or self.asked or self._gradients.hooked):
            _refuse("optimizer.step() was left out after ctx.backward(loss)", _WHOLE)

    def _check_weights(self) -> None:
        if self._changed:
            _refuse(
                "weights were changed in the middle of a step", "write that under `if ctx.boundary:`", f"or {_LOOP}"
            )

    def _end_step(self) -> None:
        if self._in_step and not self._backwards:
            _refuse("the last part of a batch had no ctx.backward(loss)", "multiply a loss that must not count by 0")
        if self._early and not self._stepped:
            _refuse("optimizer.step() was left out at the end of a step", _WHOLE)
        self._unfinished = bool(self._backwards) and not self._stepped

    @property
    def _changed(self) -> bool:
        return self._gradients.versions != self._versions


_WHOLE = (
    "ctx.steps accumulates by itself: call optimizer.step() and zero_grad() in each iteration, don't divide the loss,"
    " and pass the number of samples between two steps as batch_size"
)
_LOOP = "use ctx.loop(total_steps) with your own batches, or shards=1 and one rank"


def _refuse(seen: str, *advice: str) -> None:
    raise UsageError(f"in ctx.steps {seen}; {', '.join(advice)}")
