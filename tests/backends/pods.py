"""Pods, events and Dask clusters as the API server writes them."""

from __future__ import annotations

import time
from typing import Any

NOW = 1_800_000_000.0


def when(seconds_ago: float, now: float = NOW) -> str:
    """Return a time as the API server writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - seconds_ago))


def dask_cluster(name: str, age_seconds: float = 5.0) -> dict[str, Any]:
    """Return a Dask cluster of one node."""
    metadata = {"name": name, "creationTimestamp": when(age_seconds), "labels": {}}
    return {"metadata": metadata, "spec": {"worker": {"replicas": 1}}}


def pod(engine: str, component: str, *, runs: bool = True) -> dict[str, Any]:
    """Return a pod of an engine."""
    ready = {"type": "Ready", "status": "True" if runs else "False"}
    return {
        "metadata": {
            "name": f"{engine}-{component}-{id(ready)}",
            "creationTimestamp": when(1),
            "labels": {"dask.org/cluster-name": engine, "dask.org/component": component},
        },
        "spec": {"containers": [{"name": "main"}]},
        "status": {"phase": "Running" if runs else "Pending", "conditions": [ready]},
    }


def complaint(about: str, name: str, message: str, *, seconds_ago: float = 1, kind: str = "Warning") -> dict[str, Any]:
    """Return an event."""
    return {
        "metadata": {"creationTimestamp": when(seconds_ago)},
        "involvedObject": {"kind": about, "name": name},
        "type": kind,
        "reason": "FailedCreate",
        "message": message,
        "lastTimestamp": when(seconds_ago),
    }
