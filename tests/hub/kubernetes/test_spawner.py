"""The spawner's own decisions; tests/cluster tests how it handles pods."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("kubespawner", reason="the extra `kubernetes` is not installed")

from cnai_hub.kubernetes.spawner import CatalogKubeSpawner


@pytest.mark.parametrize(
    ("phase", "left"),
    [("Failed", []), ("Pending", ["jupyter"])],
)
def test_a_pod_that_its_node_refused_is_removed_before_the_next_start(monkeypatch, phase, left):
    refused = {"metadata": {"name": "jupyter"}, "status": {"phase": phase, "reason": "UnexpectedAdmissionError"}}
    pods = {"cnai-ada/jupyter": refused}
    monkeypatch.setattr(CatalogKubeSpawner, "pod_reflector", SimpleNamespace(pods=pods))

    async def watched(_):
        pass

    async def stop(_, now=False):
        assert now
        pods.clear()

    monkeypatch.setattr(CatalogKubeSpawner, "_start_watching_pods", watched)
    monkeypatch.setattr(CatalogKubeSpawner, "stop", stop)
    spawner = CatalogKubeSpawner.__new__(CatalogKubeSpawner)  # __init__ needs a cluster
    spawner.namespace, spawner.pod_name, spawner._start_future = "cnai-ada", "jupyter", None
    assert asyncio.run(spawner.poll()) == (1 if phase == "Failed" else None)
    assert [each["metadata"]["name"] for each in pods.values()] == left
