"""Progress of a server's pod, as a percentage and a sentence. Pure functions of the pod and its events."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cnai import reasons

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnai.foreign import Manifest


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a server's start; the sentence describes what the pod does or waits for."""

    percent: int
    sentence: str


def stage(pod: Manifest | None, events: Sequence[Manifest]) -> Stage:
    """Return the stage of a pod's start, with the reason if the pod is waiting."""
    if pod is None:
        return Stage(10, "Preparing your namespace")
    begun, why = _phase(pod, events), reasons.of_pod(pod, events)
    return replace(begun, sentence=f"{why[0].upper()}{why[1:]}") if why else begun


def _phase(pod: Manifest, events: Sequence[Manifest]) -> Stage:
    status = pod.get("status") or {}
    if status.get("phase") == "Running":
        return Stage(80, "The server is starting")
    if not (pod.get("spec") or {}).get("nodeName"):
        return Stage(20, "Looking for a node with enough free resources")
    seen = {event.get("reason") for event in events}
    if "Started" in seen:
        return Stage(80, "The server is starting")
    if "Pulled" in seen:
        return Stage(60, "The image has been pulled; creating the container")
    return Stage(40, "The node is pulling the image and mounting the home folder")
