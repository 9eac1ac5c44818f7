"""Progress: how far a server's pod is, as a number and a sentence. Pure functions of the pod and its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnai import reasons

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Stage = tuple[int, str]


def stage(pod: Mapping[str, Any] | None, events: Sequence[Mapping[str, Any]]) -> Stage:
    """Return how far a pod is in percent, and what it does or waits for."""
    if pod is None:
        return 10, "Making room in your namespace"
    percent, sentence = _phase(pod, events)
    why = reasons.of_pod(pod, events)
    return percent, sentence if not why else f"{why[0].upper()}{why[1:]}"


def _phase(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Stage:
    status = pod.get("status") or {}
    if status.get("phase") == "Running":
        return 80, "The server is starting"
    if not (pod.get("spec") or {}).get("nodeName"):
        return 20, "Looking for a node with enough room"
    seen = {event.get("reason") for event in events}
    if "Started" in seen:
        return 80, "The server is starting"
    if "Pulled" in seen:
        return 60, "The image is there; the container is being made"
    return 40, "A node was found; it fetches image and home folder"
