"""Checkpoints: the training state on disk, written while training continues."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from concurrent.futures import Future
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import torch.distributed as dist
from torch.distributed.checkpoint.state_dict_saver import async_save

from cnai.engine.training.state import cause, load_progress
from cnai.events import Checkpoint, Diagnosis

if TYPE_CHECKING:
    from pathlib import Path

    from cnai.engine.link import Link
    from cnai.engine.training.state import Progress, TrainingState

logger = logging.getLogger(__name__)

# In this group ranks wait for each other's disks; training's own group detects a lost peer.
_WRITE_TIMEOUT = timedelta(minutes=30)


class Checkpoints:
    """Reads a run's last checkpoint and writes this generation's checkpoints, one at a time, in a separate thread.

    The first failed write is reported; training continues and the previous checkpoint stays. The supervisor marks a
    written checkpoint as the run's latest and removes old checkpoints.
    """

    def __init__(self, link: Link, state: TrainingState) -> None:
        self._link, self._state = link, state
        self.pending = link.assignment.resume_from
        """The checkpoint that this generation starts from, until it is loaded."""
        self._every = link.assignment.checkpoint_every
        self._since = time.monotonic()
        self._group: dist.ProcessGroup | None = None
        self._writing: _Writing | None = None
        self._written: int | None = None
        self._failure_reported = False

    def progress(self) -> Progress:
        """Return the progress in the pending checkpoint."""
        assert self.pending is not None
        return load_progress(self.pending, self._own_group())

    def load(self) -> None:
        """Load the pending checkpoint into the prepared objects."""
        assert self.pending is not None
        self._state.load(self.pending, self._own_group())
        self.pending = None

    def due_by_step(self, step: int) -> bool:
        """Tell whether an interval counted in steps ends at this step; the answer is the same in all ranks."""
        return self._every.steps is not None and step % self._every.steps == 0

    def due_by_time(self) -> bool:
        """Tell, once per interval, that its seconds have passed on this rank's clock and nothing is being written."""
        if self._every.seconds is None or time.monotonic() - self._since < self._every.seconds:
            return False
        if self._writing is not None and not self._writing.future.done():
            return False
        self._since = time.monotonic()
        return True

    def save(self, step: int, progress: Progress) -> None:
        """Copy the state and write it in the background.

        All ranks call this after the same step. Waits until the previous checkpoint is written.
        """
        self.wait()
        if self.pending is not None or step == self._written:
            return
        self._since = time.monotonic()
        assignment = self._link.assignment
        path = assignment.run_dir / "checkpoints" / f"gen-{assignment.generation}" / f"step-{step}"
        future = async_save(self._state.collect(progress), checkpoint_id=path, process_group=self._own_group())
        assert isinstance(future, Future)
        self._writing = writing = _Writing(future, step, path)
        future.add_done_callback(lambda _: self._settle(writing))

    def wait(self) -> None:
        """Wait until the current checkpoint, if any, is written and reported."""
        if self._writing is not None:
            self._writing.future.exception()
            self._settle(self._writing)
            self._writing = None

    def _settle(self, writing: _Writing) -> None:
        """Report the end of a checkpoint.

        Two threads may call this, because a future wakes its waiters before it runs its callbacks.
        """
        with writing.lock:
            if writing.settled:
                return
            writing.settled = True
            if error := writing.future.exception():
                self._give_up(writing, error)
                return
            self._written = writing.step
            if self._link.rank == 0:
                path = writing.path.relative_to(self._link.assignment.run_dir).as_posix()
                self._link.emit(Checkpoint(path=path), step=writing.step)

    def _give_up(self, writing: _Writing, error: BaseException) -> None:
        if self._link.rank != 0:
            return
        shutil.rmtree(writing.path, ignore_errors=True)  # frees space if the disk is full
        summary = f"checkpoint of step {writing.step} could not be written: {cause(error)}"
        logger.warning("%s", summary)
        if not self._failure_reported:
            self._failure_reported = True
            hint = "training continues and the previous checkpoint stays; free space in the folder of the runs"
            self._link.emit(Diagnosis(summary=summary, hint=hint), step=writing.step)

    def _own_group(self) -> dist.ProcessGroup | None:
        """Return the writing thread's group; on training's group the two threads' collectives would mix and hang."""
        if self._group is None:
            self._group = gloo_group(_WRITE_TIMEOUT)
        return self._group


def gloo_group(timeout: timedelta | None) -> dist.ProcessGroup:
    """Create a gloo group of all ranks; all ranks must call this."""
    return cast("dist.ProcessGroup", dist.new_group(backend="gloo", timeout=timeout))


class _Writing:
    def __init__(self, future: Future[Any], step: int, path: Path) -> None:
        self.future, self.step, self.path = future, step, path
        self.lock, self.settled = threading.Lock(), False
