"""Context: the interface for user code in a rank.

    ctx = cnai.context()
    model, optimizer = ctx.prepare(net, torch.optim.Adam(net.parameters(), lr=lr))
    for x, y in ctx.steps(dataset, batch_size=256, epochs=5):   # batch_size is that of all ranks together
        loss = F.cross_entropy(model(x), y)                     # mean over the micro-batch
        ctx.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        ctx.report(loss=loss)

A step's batch is cut into a fixed number of shards, spread over the ranks; each iteration of the loop is one shard.
Prepared objects take effect once per step, on the rank's last shard, and until then gradients read as zeros; so code
may clip, unscale and clear gradients in every iteration. The samples of a step, dropout and the result (up to
floating-point order) are the same for any number of ranks, even if that number changes in the middle of an epoch.
Put other work that must run once per step, such as reporting the gradient's norm or moving a teacher's weights, under
`if ctx.boundary:`, and work that must run once per epoch under `if ctx.epoch_end:`. Code whose result would depend on
the shards is refused in its first step where that can be seen.

The loss of a step is the mean of its shards' losses. BatchNorm, also in one rank, normalizes over a shard, and a loss
that is no mean over samples (a contrastive loss, a penalty on the gradient of the weights) is computed per shard.
`shards=1`, which allows one rank, gives exactly the plain loop.

As in every torch program, unseeded random numbers differ in each rank and each run. Before the loop all ranks receive
rank 0's weights; random data, random splits and sharded models need `torch.manual_seed(…)` first.

The loop resumes after the last checkpoint, saves in the background and ends at a step boundary when the generation must
end. Code with its own data uses `for step in ctx.loop(total_steps)` in the same way. Everything also works without
cnai's engine, in one process or under torchrun; then nothing is saved and `ctx.history` keeps the reports.
"""

from __future__ import annotations

import os
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from cnai.engine import link as lines
from cnai.engine.capture.claims import claim
from cnai.engine.training.accumulation import Accumulation
from cnai.engine.training.batches import fetch, fingerprint, length
from cnai.engine.training.group import device_of, join
from cnai.engine.training.loop import Loop
from cnai.engine.training.metrics import number
from cnai.engine.training.replicas import replicate, require_same, wrap
from cnai.engine.training.shards import DEFAULT_SHARDS, Plan, whole
from cnai.engine.training.state import Stateful, TrainingState
from cnai.errors import UsageError
from cnai.events import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnai.engine.link import Link

_context: Context | None = None


def context() -> Context:
    """Return the context of this rank: the same object throughout a run, a new one for each call outside a run."""
    global _context
    link = lines.current()
    if link is None:
        return Context(None)
    if _context is None or _context._link is not link:
        _context = Context(link)
    return _context


def close() -> None:
    """Finish the pending work of this run's context; the rank calls this after the target returned."""
    global _context
    if _context is not None:
        _context._close()
        _context = None


def abandon() -> None:
    """Publish the reports that the ranks have not exchanged yet; the rank calls this when the target failed."""
    if _context is not None:
        _context._loop.abandon()


class Context:
    """A rank's place in the run, and the loop that trains in it."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    """`cuda:<local_rank>` if GPUs are available, otherwise `cpu`."""
    generation: int
    """The number of this incarnation of the run's ranks, from 0."""
    run_id: str
    """Empty outside a run."""
    history: dict[str, list[tuple[int, float]]]
    """Reports as (step, value) by name, outside a run and in rank 0 only; in a run, use `run.metrics`."""

    def __init__(self, link: Link | None) -> None:
        self._link = link
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.device = device_of(self.local_rank)
        self._made_group = join(link)
        grouped = dist.is_initialized()
        self.rank, self.world_size = (dist.get_rank(), dist.get_world_size()) if grouped else (0, 1)
        self.generation = link.assignment.generation if link else 0
        self.run_id = link.assignment.run_id if link else ""
        self.history = {}
        self._state = TrainingState()
        self._accumulation = Accumulation(self.device)
        self._loop = Loop(link, self._state, self._accumulation, self._publish)

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a context that was created in a notebook become the rank's own where a target that uses it runs."""
        if self._link is not None or dist.is_initialized():
            raise TypeError("a rank's context stays in its process; call cnai.context() where it is needed")
        return context, ()

    @property
    def step(self) -> int:
        """Return the number of the current step, from 1; after a loop, of its last step. Continues across loops."""
        return self._loop.step

    @property
    def epoch(self) -> int:
        """Return the number of this loop's current epoch, from 1; 0 outside a loop."""
        return self._loop.epoch

    @property
    def boundary(self) -> bool:
        """Tell whether this is the last micro-batch of its step in this rank; True outside a loop."""
        return self._accumulation.boundary

    @property
    def epoch_end(self) -> bool:
        """Tell whether this is the last micro-batch of its epoch in this rank."""
        return self._loop.epoch_end

    def prepare(self, *objects: Any, **ddp: Any) -> Any:
        """Return models on the device and wrapped in DistributedDataParallel (with the keywords), other objects gated.

        Checkpoints contain the prepared objects: models, optimizers, schedulers, and everything else with `state_dict`
        and `load_state_dict`. A model that is already in DDP, is sharded with `fully_shard` or has no trainable
        parameters is not wrapped. All ranks start with rank 0's weights and buffers; each rank keeps its own part of a
        sharded model.
        """
        if self._loop.running:
            raise UsageError("ctx.prepare was called inside a loop; call it before the loop")
        prepared = tuple(self._prepare(each, ddp) for each in objects)
        self._check_parameters()
        if self._link is None:
            for each in prepared:
                claim(each)
        return prepared[0] if len(prepared) == 1 else prepared

    def steps(
        self,
        dataset: Any,
        batch_size: int,
        epochs: int = 1,
        *,
        shards: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        **loader: Any,
    ) -> Iterator[Any]:
        """Yield this rank's micro-batches, on the device, from the last checkpoint to the end of the last epoch.

        `dataset` has `__len__` and `__getitem__`, or is a tuple of tensors (fastest). `batch_size` counts the samples
        of all ranks together. `shards` is the fixed number of parts of a batch and so the maximum number of ranks
        (default: 4, or more if the run started with more ranks); fewer shards mean fewer, larger micro-batches. A last
        batch with fewer samples than shards is dropped. torch's DataLoader takes the other keywords (num_workers,
        collate_fn, …).
        """
        batch_size = whole("batch_size", batch_size, 1)
        first_ranks = self._link.assignment.first_world_size if self._link else self.world_size
        plan = Plan(
            samples=length(dataset),
            batch_size=batch_size,
            epochs=whole("epochs", epochs, 1),
            shards=min(max(DEFAULT_SHARDS, first_ranks), batch_size) if shards is None else whole("shards", shards, 1),
            shuffle=bool(shuffle),
            seed=whole("seed", seed),
        )
        plan.require(self.world_size)
        self._accumulation.check(plan.shards, self.world_size)
        data = fingerprint(dataset)
        require_same(data)
        return self._loop.run(
            plan, data, lambda done: fetch(dataset, plan, done, self.rank, self.world_size, self.device, loader)
        )

    def loop(self, total_steps: int, *, seed: int = 0) -> Iterator[int]:
        """Yield the step numbers from the last checkpoint to `total_steps`, for code with its own data.

        Steps count from 1. Each iteration is one step in all ranks; `ctx.backward` averages over ranks, not samples.
        Nothing is gated: the code's own order of backward passes, steps and cleared gradients counts.
        """
        return self._loop.count(whole("total_steps", total_steps, 0), whole("seed", seed))

    def backward(self, loss: torch.Tensor, **options: Any) -> None:
        """Call `loss.backward(**options)`, scaled so that all shards and ranks add up to the global mean's gradient.

        `loss` must be a mean over the micro-batch. In `ctx.steps` gradients read as zeros before `ctx.boundary`.
        """
        self._accumulation.backward(loss, **options)

    def report(self, **values: Any) -> None:
        """Report numbers or tensors with one element, without waiting.

        Each step gets one value per name: the mean over the samples of all ranks that reported it (in `ctx.loop`: over
        those ranks). Outside a loop, and in the last few steps before a `break`, only rank 0's value counts; in the
        last few steps before an exception, that of the rank that raised it.
        """
        if self._loop.running:
            self._loop.report(values)
        elif self.rank == 0:
            self._publish(self.step, {name: float(number(name, value)) for name, value in values.items()})

    def checkpoint(self) -> None:
        """Save a checkpoint.

        Outside a loop all ranks must call this, and it saves immediately. Inside a loop one rank's call is enough, and
        all ranks save within the next few steps.
        """
        self._loop.checkpoint()

    def _prepare(self, thing: Any, ddp: dict[str, Any]) -> Any:
        if isinstance(thing, nn.Module):
            return self._prepare_model(thing, ddp)
        if isinstance(thing, torch.optim.Optimizer) and not _needs_closure(thing):
            self._state.optimizers.append(thing)
        elif isinstance(thing, Stateful):
            self._state.others.append(thing)
        else:
            raise UsageError(
                "ctx.prepare takes models, optimizers and objects with state_dict and load_state_dict;"
                f" given: {type(thing).__name__}"
                + ("; ctx.steps takes the dataset" if hasattr(thing, "__len__") else "")
            )
        self._accumulation.adopt(thing)
        return thing

    def _prepare_model(self, given: nn.Module, ddp: dict[str, Any]) -> nn.Module:
        net = given.module if isinstance(given, DistributedDataParallel) else given
        if not isinstance(net, FSDPModule):
            net.to(self.device)
        model = self._wrap(net, ddp) if given is net else given
        if dist.is_initialized() and not isinstance(model, DistributedDataParallel):
            replicate(net, self.device)
        self._state.nets.append(net)
        self._accumulation.adopt(net)
        self._accumulation.adopt_model(model, net)
        return model

    def _wrap(self, net: nn.Module, ddp: dict[str, Any]) -> nn.Module:
        learns = any(parameter.requires_grad for parameter in net.parameters())
        averaged = isinstance(net, torch.optim.swa_utils.AveragedModel)
        if not dist.is_initialized() or isinstance(net, FSDPModule) or averaged or not learns:
            return net
        return wrap(net, self.device, ddp)

    def _check_parameters(self) -> None:
        known = {id(parameter) for net in self._state.nets for parameter in net.parameters()}
        others = [each for each in self._state.others if isinstance(each, torch.optim.Optimizer)]
        for optimizer in [*self._state.optimizers, *others]:
            if any(id(parameter) not in known for group in optimizer.param_groups for parameter in group["params"]):
                raise UsageError(
                    f"{type(optimizer).__name__} has parameters of a model that is not prepared;"
                    " pass the model to ctx.prepare before or with it"
                )

    def _publish(self, step: int, values: dict[str, float]) -> None:
        if self._link is not None:
            # Step 0 becomes None: the views number the reports of code without a loop themselves.
            self._link.emit(Metrics(values), step=step or None)
            return
        for name, value in values.items():
            self.history.setdefault(name, []).append((step, value))

    def _close(self) -> None:
        self._loop.wait()
        if self._made_group and dist.is_initialized():
            dist.destroy_process_group()


def _needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether the optimizer is one like LBFGS, which DCP can't initialize: it is saved like other objects."""
    closure = signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is Parameter.empty
