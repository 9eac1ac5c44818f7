"""Loop: resumable steps. Tracks the position in training and, between two steps, agrees, saves or ends."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from cnai.engine.link import GenerationEnd
from cnai.engine.messages import Abilities
from cnai.engine.training.checkpoints import Checkpoints, gloo_group
from cnai.engine.training.consensus import Consensus
from cnai.engine.training.group import timeout_of
from cnai.engine.training.shards import Micro, Plan, mix
from cnai.engine.training.state import Progress
from cnai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cnai.engine.link import Link
    from cnai.engine.training.accumulation import Accumulation
    from cnai.engine.training.metrics import Publish
    from cnai.engine.training.shards import Identity
    from cnai.engine.training.state import TrainingState

    Turns = Callable[[int], Iterator[tuple[Micro, Any]]]
    """Returns the micro-batches that follow a given number of the loop's steps."""


class Loop:
    """The loops of one target, one after the other; `step` continues across loops."""

    def __init__(self, link: Link | None, state: TrainingState, accumulation: Accumulation, publish: Publish) -> None:
        self.step = self.epoch = 0
        self.epoch_end = self.running = False
        self._link, self._accumulation = link, accumulation
        self._rank, self._world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self._publish = publish
        self._weight = 1
        self._begun = 0
        self._before = 0
        self._identity: Identity = {}
        self._asked = False
        self._must_save = self._must_stop = False
        self._consensus: Consensus | None = None
        self._checkpoints = Checkpoints(link, state) if link else None

    def run(self, plan: Plan, data: str, turns: Turns) -> Iterator[Any]:
        """Yield the micro-batches of a plan over `data`, from the last checkpoint on."""
        self._begin_another()
        return self._run({**plan.identity(), "data": data}, turns, plan.random_seed, plan.shards)

    def count(self, total: int, seed: int) -> Iterator[int]:
        """Yield the step numbers from the last checkpoint to `total`."""
        self._begin_another()
        rank, share = self._rank, 1 / self._world_size

        def turns(done: int) -> Iterator[tuple[Micro, int]]:
            for index in range(done, total):
                yield Micro(index, 0, rank, 0, 1, share, first=True, last=True, ends_epoch=False), index + 1

        return self._run({"seed": seed}, turns, lambda micro: mix(seed, micro.done, micro.shard), None)

    def report(self, values: Mapping[str, object]) -> None:
        """Record the values that the code reports in this micro-batch."""
        assert self._consensus is not None
        self._consensus.ledger.add(self.step, values, self._weight)

    def checkpoint(self) -> None:
        """Save now if no loop is running; otherwise vote to save at the next exchange."""
        if self.running:
            self._asked = True
        else:
            self._save()
            self.wait()

    def wait(self) -> None:
        """Wait until no checkpoint is being written."""
        if self._checkpoints is not None:
            self._checkpoints.wait()

    def abandon(self) -> None:
        """Publish this rank's own reports if a loop is running: an exception of the target has not closed the loop."""
        if self.running and self._consensus is not None:
            self._consensus.abandon(failed=True)

    def _begin_another(self) -> None:
        if self.running:
            raise UsageError(
                "another loop of this context is still running; ctx.steps and ctx.loop are for training, one at a time;"
                " for evaluation iterate over the data directly"
            )
        self._begun += 1

    def _run(self, identity: Identity, turns: Turns, seed: Callable[[Micro], int], shards: int | None) -> Iterator[Any]:
        done = self._enter(identity)
        if done is None:
            return
        if self._link is not None:
            self._link.announce(Abilities(graceful=True, max_ranks=shards or sys.maxsize))
        finished = False
        try:
            self._accumulation.enter(shared=(shards or 1) > 1)
            for micro, batch in turns(done):
                self._begin_turn(micro)
                _seed(seed(micro))
                yield batch
                self._accumulation.end(micro)
                if micro.last:
                    self._between_steps()
            finished = True
        except Exception:  # a peer was lost, or the data raised
            self.abandon()
            raise
        finally:
            self._leave(finished=finished)
        self._finish()

    def _enter(self, identity: Identity) -> int | None:
        """Return how many steps of this loop are done; None if the checkpoint is from a later loop."""
        if self._checkpoints is not None and self._checkpoints.pending is not None:
            if not self._resume(self._checkpoints, identity):
                return None
        else:
            self._before = self.step
        self._identity = identity
        if self._consensus is None:
            self._consensus = Consensus(self._control_group(), self._rank, self._publish)
        self._consensus.begin(self.step)
        self.running = True
        return self.step - self._before

    def _resume(self, checkpoints: Checkpoints, identity: Identity) -> bool:
        saved = checkpoints.progress()
        if self._begun < saved.loop:
            self.step = saved.before
            return False
        same = self._begun == saved.loop
        if same and _differences(saved.identity, identity):
            raise UsageError(
                f"the checkpoint of step {saved.step} is from a loop over other data or arguments"
                f" ({_differences(saved.identity, identity)}); keep the data and arguments, or start a new run"
            )
        checkpoints.load()
        self.step, self._before = saved.step, saved.before if same else saved.step
        return True

    def _begin_turn(self, micro: Micro) -> None:
        self.step, self.epoch, self.epoch_end = self._before + micro.done + 1, micro.epoch + 1, micro.ends_epoch
        self._weight = micro.stop - micro.start
        self._accumulation.begin(micro, self._world_size)

    def _between_steps(self) -> None:
        assert self._consensus is not None
        self._must_save |= self._checkpoints is not None and self._checkpoints.due_by_step(self.step)
        if self._consensus.due(self.step):
            stopping = self._link is not None and self._link.stopping.is_set()
            verdict = self._consensus.exchange(self.step, stop=stopping, save=self._wants_save())
            self._must_save |= verdict.save
            self._must_stop |= verdict.stop
        if not (self._must_save or self._must_stop) or self._accumulation.unfinished:
            return
        self._must_save = False
        if self._must_stop:
            self._consensus.finish(self.step)
            self._save()
            self.wait()
            raise GenerationEnd(f"after step {self.step}")
        if self._checkpoints is not None:
            # Publish all reports before the checkpoint: a generation that resumes from it won't repeat them.
            self._consensus.finish(self.step)
            self._consensus.begin(self.step)
            self._save()

    def _wants_save(self) -> bool:
        asked, self._asked = self._asked, False
        return asked or (self._rank == 0 and self._checkpoints is not None and self._checkpoints.due_by_time())

    def _save(self) -> None:
        if self._checkpoints is not None:
            progress = Progress(loop=self._begun, before=self._before, step=self.step, identity=self._identity)
            self._checkpoints.save(self.step, progress)

    def _leave(self, *, finished: bool) -> None:
        self._accumulation.leave()
        self.running = self.epoch_end = False
        self.epoch = 0
        if not finished and self._consensus is not None:  # a break or an exception: other ranks may be at another step
            self._consensus.abandon()

    def _finish(self) -> None:
        assert self._consensus is not None
        if self._consensus.finish(self.step, save=self._wants_save()):
            self._save()
        self.wait()
        if self._link is not None:
            self._link.announce(Abilities(graceful=False))

    def _control_group(self) -> dist.ProcessGroup | None:
        if self._world_size == 1:
            return None
        return gloo_group(timeout_of(self._link) if self._link else None)


def _seed(seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)


def _differences(saved: Identity, given: Identity) -> str:
    # A checkpoint of an older version has no fingerprint of the data.
    keys = [key for key, value in saved.items() if given.get(key) != value]
    return ", ".join(f"{key} was {saved.get(key)}, is {given.get(key)}" for key in keys)
