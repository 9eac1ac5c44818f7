"""Engines: the engines that exist, as `%cnai cluster` shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnai.engine.records import EngineStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

NONE_YET = "no engine is running; it starts with the first run"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PodEngine:
    """An engine on Kubernetes, read from its person's namespace and store without asking its scheduler."""

    engine: str
    flavor: str
    nodes: int
    """Running nodes."""
    wanted_nodes: int
    gpus: int
    """GPUs of the running nodes."""
    runs: tuple[str, ...]
    """Ids of its runs that have not ended."""
    idle_seconds: float | None
    """None while it has runs."""
    reason: str
    """What it waits for, "" if nothing is missing."""

    def __repr__(self) -> str:
        facts = [f"{self.engine} ({self.flavor})", f"{self.nodes} of {self.wanted_nodes} nodes", f"{self.gpus} GPUs"]
        facts.append("idle" if self.idle_seconds is not None else f"runs {', '.join(self.runs)}")
        return " · ".join(filter(None, (*facts, self.reason)))


class Engines(list[EngineStatus | PodEngine]):
    """Engines, one per line; an empty list prints `none`."""

    def __init__(self, found: Iterable[EngineStatus | PodEngine] = (), none: str = NONE_YET) -> None:
        super().__init__(found)
        self.none = none

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or self.none
