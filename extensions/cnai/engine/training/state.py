"""State: all prepared objects as one state that any number of ranks can save and load."""

from __future__ import annotations

import contextlib
import io
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import torch
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load

from cnai.errors import StoreError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import torch.distributed as dist

    from cnai.engine.training.shards import Identity


@runtime_checkable
class Stateful(Protocol):
    """An object with a state to save: a scheduler, a moving average, the user's own class."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state to save."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Restore a saved state."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where the code is, in a checkpoint as a plain dict."""

    loop: int
    """Number of the loop, from 1; 0 before the first."""
    before: int
    """Steps of the loops before it."""
    step: int
    identity: Identity


class TrainingState:
    """All prepared objects, as one state whose names don't depend on DDP, FSDP or the number of ranks.

    `model` and `optimizer` are plain DCP state dicts with the parameter names of the user's unwrapped model, so that
    other tools can read them.
    """

    def __init__(self) -> None:
        self.nets: list[nn.Module] = []
        self.optimizers: list[torch.optim.Optimizer] = []
        self.others: list[Stateful] = []

    def collect(self, progress: Progress) -> dict[str, Any]:
        """Return the state; tensors are not copied yet."""
        rest = io.BytesIO()
        torch.save({"progress": asdict(progress), "others": [other.state_dict() for other in self.others]}, rest)
        return {**self._tensors(), "rest": rest.getvalue()}

    def load(self, path: Path, group: dist.ProcessGroup | None) -> None:
        """Load a checkpoint into the prepared objects; all ranks must call this."""
        state = self._tensors()
        rest = _load(path, state, group)
        if len(rest["others"]) != len(self.others):
            raise UsageError(
                f"the checkpoint holds {len(rest['others'])} objects with a state besides models and optimizers, but"
                f" {len(self.others)} were prepared; pass the same objects to ctx.prepare as before"
            )
        if self.nets:
            set_state_dict(
                self._root(),
                self.optimizers,
                model_state_dict=state["model"],
                optim_state_dict=state.get("optimizer", {}),
                options=StateDictOptions(strict=False),
            )
        for other, saved in zip(self.others, rest["others"], strict=True):
            other.load_state_dict(saved)

    def _tensors(self) -> dict[str, Any]:
        if not self.nets:
            return {}
        model, optimizer = get_state_dict(self._root(), self.optimizers)
        return {"model": model, "optimizer": optimizer} if self.optimizers else {"model": model}

    def _root(self) -> nn.Module:
        return self.nets[0] if len(self.nets) == 1 else nn.ModuleList(self.nets)


def load_progress(path: Path, group: dist.ProcessGroup | None) -> Progress:
    """Return the `progress` with which a checkpoint was collected; all ranks must call this."""
    return Progress(**_load(path, {}, group)["progress"])


def cause(error: BaseException) -> str:
    """Return the first failed rank's error in one line."""
    with contextlib.suppress(AttributeError, StopIteration, TypeError):
        error = next(iter(cast("Any", error).failures.values()))[0]
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _load(path: Path, tensors: dict[str, Any], group: dist.ProcessGroup | None) -> dict[str, Any]:
    """Fill `tensors` from a checkpoint and return the rest of its content."""
    state = {**tensors, "rest": b""}
    try:
        there = FileSystemReader(path).read_metadata().state_dict_metadata
        if missing := [key for key in state.get("model", ()) if f"model.{key}" not in there]:
            raise KeyError(f"it has no {', '.join(missing)}")  # noqa: TRY301
        # A partial load, because a parameter that never had a gradient has no optimizer state yet.
        planner = DefaultLoadPlanner(allow_partial_load=True)
        load(state, checkpoint_id=path, planner=planner, process_group=group, no_dist=group is None)
    except (Exception, CheckpointException) as error:  # torch derives CheckpointException from BaseException
        raise StoreError(
            f"checkpoint {path} does not fit the prepared objects, or is damaged: {cause(error)}"
        ) from error
    tensors.update({key: state[key] for key in tensors})
    return cast("dict[str, Any]", torch.load(io.BytesIO(state["rest"]), map_location="cpu", weights_only=False))
