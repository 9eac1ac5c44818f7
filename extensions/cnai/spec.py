"""RunSpec: everything that `%cnai train` requests, validated when built."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from cnai import environment
from cnai.errors import UsageError

TargetKind = Literal["function", "cell", "script"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_INTERVAL = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>s|m|h)?")
_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Ranks:
    """World size: fixed, or elastic between `minimum` and `maximum`; a run starts with as many ranks as fit."""

    minimum: int
    maximum: int

    @classmethod
    def parse(cls, given: int | str | Ranks) -> Ranks:
        """Read `4`, `"4"` or `"1:4"`."""
        if isinstance(given, Ranks):
            return given
        match = re.fullmatch(r"(\d+)(?::(\d+))?", str(given).strip())
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if isinstance(given, bool) or not 1 <= low <= high:
            raise UsageError(f"ranks must be 1 or more, or a range such as 1:4; given: {given}")
        return cls(low, high)

    def __str__(self) -> str:
        return str(self.maximum) if self.minimum == self.maximum else f"{self.minimum}:{self.maximum}"


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval: every `steps` optimizer steps, or every `seconds`; exactly one of them is set."""

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, given: int | str | Interval) -> Interval:
        """Read `100` (steps), or `"30s"`, `"5m"`, `"1h"`."""
        if isinstance(given, Interval):
            return given
        match = _INTERVAL.fullmatch(str(given).strip())
        if match is None or isinstance(given, bool) or not float(match["number"]):
            raise UsageError(
                f"checkpoint_every must be a number of steps (100) or a time (30s, 5m, 1h); given: {given}"
            )
        if match["unit"]:
            return cls(seconds=float(match["number"]) * _UNIT_SECONDS[match["unit"]])
        if "." in match["number"]:
            raise UsageError(f"checkpoint_every in steps must be a whole number; given: {given}")
        return cls(steps=int(match["number"]))

    def __str__(self) -> str:
        return str(self.steps) if self.steps is not None else f"{self.seconds:g}s"


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a run: a captured function, a cell's body, or a script with its arguments.

    `source` names the origin of the code, for people. `returns` are the names that a cell returns.
    """

    kind: TargetKind
    name: str
    source: str = ""
    returns: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """Everything about a run except its code, which is in the payload."""

    target: Target
    ranks: Ranks = Ranks(1, 1)
    """World size; the same run may be scaled later."""
    nodes: int | None = None
    """Number of nodes that share the ranks; None: as few as the flavor allows."""
    flavor: str | None = None
    """Name of a flavor in the catalog; None: the backend's default."""
    image: str | None = None
    """Name of an image in the catalog; None: the notebook's own."""
    backend: str = field(default_factory=environment.BACKEND.get)
    """debug (in this process), local, kubernetes, or the address of a Dask scheduler (tcp://…)."""
    name: str = ""
    """Display name; default: the target's name."""
    checkpoint_every: Interval = Interval(seconds=10.0)
    """Interval of automatic checkpoints of code that uses `cnai.context()`."""
    retries: int = 0
    """Restarts after an exception or an exit code of the user's code without progress since the last failure."""
    infra_retries: int = 3
    """Restarts after a lost node or a rank that a signal killed without progress since the last failure."""
    timeout_seconds: float | None = None
    """Limit of one collective, a rank that waits longer fails; None: 120 s for `cnai.context()`, torch's own for groups
    that the code creates (30 minutes, with NCCL 10)."""
    grace_seconds: float = 30.0
    """How long ranks that are asked to end may take, for a step or after SIGTERM; then they are killed."""
    stall_seconds: float | None = None
    """Limit without a step or report, for code that uses `cnai.context()`; None: no limit."""
    deadline_seconds: float | None = None
    """Limit of the whole run; None: no limit."""
    ttl_seconds: float | None = None
    """How long a finished run stays in the store; None: until it is removed."""
    env: dict[str, str] = field(default_factory=dict, repr=False)
    """Added to the environment of each rank."""
    debug: bool = False
    """Show complete tracebacks, including cnai's own frames."""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.target.name)
        if not _NAME.fullmatch(self.name):
            raise UsageError(f"name must be letters, digits, '_', '-' or '.', at most 64; given: {self.name!r}")
        for key in ("retries", "infra_retries"):
            if getattr(self, key) < 0:
                raise UsageError(f"{key} must be 0 or more; given: {getattr(self, key)}")
        for key in ("timeout_seconds", "grace_seconds", "stall_seconds", "deadline_seconds", "ttl_seconds"):
            if (value := getattr(self, key)) is not None and not value > 0:
                raise UsageError(f"{key} must be above 0; given: {value}")
        if self.nodes is not None and not 1 <= self.nodes <= self.ranks.maximum:
            raise UsageError(f"nodes must be from 1 to ranks ({self.ranks.maximum}); given: {self.nodes}")
        _check_env(self.env)

    def to_json(self) -> str:
        """Return the spec as JSON text."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> RunSpec:
        """Read what `to_json` wrote."""
        raw: dict[str, Any] = json.loads(text)
        raw["target"] = Target(**{**raw["target"], "returns": tuple(raw["target"]["returns"])})
        raw["ranks"] = Ranks(**raw["ranks"])
        raw["checkpoint_every"] = Interval(**raw["checkpoint_every"])
        return cls(**{f.name: raw[f.name] for f in fields(cls) if f.name in raw})


def _check_env(given: Any) -> None:
    """Refuse variables that no process can have, without showing text, which may be a secret."""
    if not isinstance(given, dict):
        raise UsageError(f"env must be a dict of names and text, such as {{'N': '4'}}; given: {type(given).__name__}")
    for name, value in given.items():
        if not isinstance(name, str) or not name or set("=\0") & set(name):
            raise UsageError(f"a name in env must be text without '='; given: {name!r}")
        if not isinstance(value, str):
            raise UsageError(f"env[{name!r}] must be text; given: a {type(value).__name__}; write str(…) around it")
        if "\0" in value:
            raise UsageError(f"env[{name!r}] must be text without NUL characters; take them out")


def nodes_for(ranks: int, nodes: int | None = None, ranks_per_node: int | None = None) -> int:
    """Return the number of nodes for a number of ranks: `nodes`, or more if a node can't hold its share."""
    needed = -(-ranks // ranks_per_node) if ranks_per_node else 1
    return min(ranks, max(nodes or 1, needed))
