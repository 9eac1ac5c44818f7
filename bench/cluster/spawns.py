"""Measures the time from the request for a server until the hub reports it ready: our hub and plain KubeSpawner."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import hubpod

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from realcluster import Cluster

FLAVOR = {"name": "small", "title": "Small", "cpu": 0.5, "memory_gib": 1, "default": True}
POLL_SECONDS = 0.05


def rows(cluster: Cluster, images: Mapping[str, str], _: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """Yield seconds of spawns; the first spawns also create the person's namespace and home."""
    with (
        hubpod.installed(cluster, images, _ours()) as ours,
        hubpod.installed(cluster, images, _plain(images["notebook"])) as plain,
    ):
        for number in range(rounds + 1):
            hubs = {"ours": ours, "plain": plain}
            for name in list(hubs)[:: -1 if number % 2 else 1]:
                kind = "spawn" if number else "first spawn"
                yield {"name": f"{kind}, {name}", "value": _spawn(hubs[name]), "round": number}


def _spawn(hub: hubpod.HubPod) -> float:
    person = hub.person("ada")
    with hub.api as api:
        start = time.monotonic()
        api.post(f"/users/{person}/servers/", json={"user_options": {}}).raise_for_status()
        while (
            not (server := api.get(f"/users/{person}").raise_for_status().json()["servers"].get(""))
            or not server["ready"]
        ):
            if server is None or time.monotonic() - start > hubpod.PATIENCE_SECONDS:
                raise SystemExit(f"the server did not start:\n{hub.log()[-3000:]}")
            time.sleep(POLL_SECONDS)
        seconds = time.monotonic() - start
    hub.stop(person)
    return seconds


def _ours() -> dict[str, Any]:
    return {"custom": {"cnai": {"catalog": {"flavor": [FLAVOR]}}}}


def _plain(image: str) -> dict[str, Any]:
    """Return Helm values that keep the chart's own spawner, with the same image, the same limits and a home."""
    home = {"name": "home", "persistentVolumeClaim": {"claimName": "home-{user_server}"}}
    context = {"capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spawner = {
        "image": image,
        "cpu_limit": FLAVOR["cpu"],
        "cpu_guarantee": FLAVOR["cpu"],
        "mem_limit": f"{FLAVOR['memory_gib']}G",
        "mem_guarantee": f"{FLAVOR['memory_gib']}G",
        "container_security_context": context,
        "storage_pvc_ensure": True,
        "pvc_name_template": "home-{user_server}",
        "storage_capacity": "1Gi",
        "storage_access_modes": ["ReadWriteMany"],
        "volumes": [home],
        "volume_mounts": [{"name": "home", "mountPath": "/home/cnai"}],
        "notebook_dir": "/home/cnai",
    }
    return {
        "hub": {"extraConfig": None, "config": {"KubeSpawner": spawner}},
        "rbac": {"create": True},
        "singleuser": {"extraPodConfig": None},
    }
