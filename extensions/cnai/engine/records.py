"""Records: the facts in a run's folder and in an engine's status, typed. Reading ignores keys of later versions."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

from cnai.events import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The number of nodes for a run, and the resources of each; a backend's `check` derives it from the spec."""

    cpu: float | None = None
    """CPUs of a node; None for all."""
    gpus: int | None = None
    """GPUs of a node; None for all."""
    nodes: int | None = None
    """None for as few as hold the ranks."""
    ranks_per_node: int | None = None
    """None for all ranks."""
    flavor: str = ""
    image_reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Hashes of what decides a run's result; two runs with the same hashes have the same result."""

    code: str
    """The target's code with the values that it uses."""
    arguments: str
    modules: str
    """Local modules."""
    conditions: str
    """Ranks, image and `env` of the spec."""

    @property
    def key(self) -> str:
        """Return the fingerprint as one text."""
        return "-".join((self.code, self.arguments, self.modules, self.conditions))


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """record.json: who started a run, when, from which code and versions, and the room that it requested."""

    created: float = 0.0
    """Seconds since 1970 (UTC)."""
    who: str = ""
    cwd: str = ""
    code_hash: str = ""
    fingerprint: Fingerprint | None = None
    """Written when `--reuse` first looks at the run."""
    python: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    image: str = ""
    engine: str = ""
    """Name of the run's engine, "" if its backend has no names."""
    room: Room = field(default_factory=Room)

    def to_json(self) -> str:
        """Return the file's content, with the room's fields on the top level."""
        content = asdict(self)
        room = content.pop("room")
        return json.dumps({**content, **room}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        content = json.loads(text)
        found = content.pop("fingerprint", None)
        fingerprint = Fingerprint(**known(Fingerprint, found)) if found else None
        return cls(**known(cls, content), fingerprint=fingerprint, room=Room(**known(Room, content)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """environment: the variables of the kernel or shell that started a run; no other file has their values."""

    machine: str
    """Where they come from, as `environment.machine` names it."""
    variables: dict[str, str] = field(repr=False)
    given: dict[str, str] = field(default_factory=dict, repr=False)
    """Those of `--env`."""

    def to_json(self) -> str:
        """Return the file's content."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        return cls(**known(cls, json.loads(text)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """state.json: the status of a run; the defaults are those of a run that no engine has begun."""

    state: State = State.PENDING
    reason: str = ""
    generation: int = 0
    world_size: int = 0
    """0 before the first generation."""
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
        content = json.loads(text)
        return cls(**{**known(cls, content), "state": State(content["state"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """The status of a node."""

    address: str
    pid: int
    memory_mib: float
    """Memory of the node's own process, without its ranks."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EngineStatus:
    """The status of an engine: the scheduler's address and pid, its nodes, and the state of each active run."""

    address: str
    pid: int
    nodes: tuple[NodeStatus, ...] = ()
    runs: dict[str, State] = field(default_factory=dict)

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        """Read the scheduler's answer."""
        nodes = tuple(NodeStatus(**known(NodeStatus, node)) for node in answer["nodes"])
        runs = {run_id: State(state) for run_id, state in answer["runs"].items()}
        return cls(**{**known(cls, answer), "nodes": nodes, "runs": runs})

    def __repr__(self) -> str:
        return readable(self)


def readable(record: DataclassInstance) -> str:
    """Return a record's fields as indented lines, for people, without fields that are None."""
    facts = {key: value for key, value in asdict(record).items() if value is not None}
    return json.dumps(facts, indent=2, default=str)


def known(record: type[DataclassInstance], content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the items of a mapping that are fields of a record, except `room`."""
    names = {one.name for one in fields(record)} - {"room"}
    return {key: value for key, value in content.items() if key in names}
