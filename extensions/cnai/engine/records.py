"""Records: what a run's folder says of it in JSON, as typed facts. Keys of later versions are passed over."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

from cnai.events import State

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What each node has for a run's ranks, and how many nodes: what a backend's `check` makes of a spec."""

    cpu: float | None = None
    """CPUs of a node; None: all it has."""
    gpus: int | None = None
    """GPUs of a node; None: all it has."""
    nodes: int | None = None
    """None: as few as hold the ranks."""
    ranks_per_node: int | None = None
    """None: as many as there are."""
    flavor: str = ""
    image_reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """record.json: who started a run, when, from which code and versions, and the room that it asked for."""

    created: float = 0.0
    """Seconds since 1970 (UTC)."""
    who: str = ""
    cwd: str = ""
    code_hash: str = ""
    inputs_hash: str = ""
    """Hash of the code and its arguments, "" for a cell."""
    python: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    image: str = ""
    engine: str = ""
    """Name of the engine that has to run it, "" where a backend has no names."""
    room: Room = field(default_factory=Room)

    def to_json(self) -> str:
        """Return the file's content: the room's facts stand among the others."""
        told = asdict(self)
        room = told.pop("room")
        return json.dumps({**told, **room}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        told = json.loads(text)
        return cls(**_known(cls, told), room=Room(**_known(Room, told)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """state.json: where a run is; what a new run has before an engine has taken it is the default."""

    state: State = State.PENDING
    reason: str = ""
    generation: int = 0
    world_size: int = 0
    """0: no generation has begun yet."""
    first_world_size: int | None = None
    max_ranks: int | None = None
    """How many ranks the code can use; None until it has reached `ctx.steps`."""
    engine: str = ""

    def to_json(self) -> str:
        """Return the file's content."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        told = json.loads(text)
        return cls(**{**_known(cls, told), "state": State(told["state"])})


def _known(record: type[Room | Record | Status], told: Mapping[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(record)} - {"room"}
    return {key: value for key, value in told.items() if key in names}
