"""Tenants on a real cluster: made by the hub's own account, and everybody acting with their own token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from realcluster import RESTRICTED, Cluster, Refused

from cnai.catalog import Catalog, Flavor, Image
from cnai_hub import tenants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CPU = Flavor(name="cpu", title="", cpu=2, memory_gib=4)
GPU = Flavor(name="gpu", title="", cpu=2, memory_gib=4, gpus=2, groups=("research",))
CATALOG = Catalog(images=(Image(name="torch", title=""),), flavors=(CPU, GPU))
PATIENCE_SECONDS = 240.0


@dataclass(frozen=True)
class Account(Cluster):
    """A cluster as one service account sees it, by a token and nothing else."""

    kubeconfig: str = ""

    def kubectl(self, *words: str, given: object = None) -> str:
        """Run kubectl as this account."""
        return super().kubectl(f"--kubeconfig={self.kubeconfig}", *words, given=given)


def account(cluster: Cluster, folder: Path, namespace: str, name: str) -> Account:
    """Return the cluster as a service account, with a kubeconfig of its own."""
    config = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    token = cluster.kubectl("create", "token", name, "-n", namespace, "--duration=3600s").strip()
    config["users"] = [{"name": config["contexts"][0]["context"]["user"], "user": {"token": token}}]
    kubeconfig = folder / f"{namespace}-{name}.json"
    kubeconfig.write_text(json.dumps(config))
    return Account(cluster.kubectl_path, cluster.place, str(kubeconfig))


@contextmanager
def installed(cluster: Cluster, settings: tenants.Cluster) -> Iterator[None]:
    """Install what an administrator does; remove afterwards what was not there before."""
    place = {"name": settings.hub_namespace}
    hub = {"name": settings.hub_account, "namespace": settings.hub_namespace}
    basis = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": place},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": hub},
    ]
    added = [each for each in [*basis, *tenants.cluster_manifests(settings)] if not exists(cluster, each)]
    for manifest in [*basis, *tenants.cluster_manifests(settings)]:
        apply(cluster, manifest)
    try:
        yield
    finally:
        for manifest in reversed(added):
            cluster.kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", given=manifest)


@contextmanager
def tenant(
    cluster: Cluster,
    hub: Cluster,
    user: str,
    groups: list[str],
    settings: tenants.Cluster,
    offered: Catalog = CATALOG,
) -> Iterator[str]:
    """Make a tenant as the hub does, and remove it as an administrator does."""
    namespace, *inside = tenants.manifests(user, groups, offered, settings)
    name = namespace["metadata"]["name"]
    hub.create(namespace)
    try:
        for manifest in inside:
            # The API server sees a fresh role binding a moment later.
            until(lambda manifest=manifest: apply(hub, manifest))
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=true", "--timeout=300s")


@contextmanager
def operator(kubeconfig: str, log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the hardened operator as a process of this machine."""
    environment = {**os.environ, "KUBECONFIG": kubeconfig, "PYTHONPATH": os.pathsep.join(sys.path)}
    # kr8s writes the authority of a kubeconfig into a new file for each client, and leaves it.
    environment["TMPDIR"] = str(log.parent)
    with log.open("wb") as out:
        command = [sys.executable, "-m", "cnai_hub.operator", *options]
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def apply(cluster: Cluster, manifest: dict[str, Any]) -> None:
    """Apply a manifest as the hub does."""
    cluster.kubectl(
        "apply", "--server-side", "--force-conflicts", "--field-manager=cnai-hub", "-f", "-", given=manifest
    )


def exists(cluster: Cluster, manifest: dict[str, Any]) -> bool:
    """Tell whether an object of this name is there."""
    try:
        cluster.kubectl("get", "-f", "-", given=manifest)
    except Refused:
        return False
    return True


def until(attempt: Callable[[], Any]) -> Any:
    """Return what an attempt returns, once it is neither refused nor false."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            found = attempt()
        except Refused:
            if time.monotonic() > deadline:
                raise
        else:
            if found is not False:
                return found
            assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.2)


def dask_cluster(name: str, image: str, *, workers: int = 1, gpus: int = 0) -> dict[str, Any]:
    """Return a Dask cluster that a tenant may start."""
    resources: dict[str, Any] = {"limits": {"cpu": "50m", "memory": "32Mi"}}
    worker: dict[str, Any] = {"limits": {**resources["limits"], **({"nvidia.com/gpu": str(gpus)} if gpus else {})}}
    selector = {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    # No targetPort: the resource definition takes text only, where a Service wants a number.
    ports = [{"name": "tcp-comm", "port": 8786}, {"name": "http-dashboard", "port": 8787}]
    scheduler = {"spec": _pod(image, resources), "service": {"type": "ClusterIP", "selector": selector, "ports": ports}}
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {"name": name},
        "spec": {"scheduler": scheduler, "worker": {"replicas": workers, "spec": _pod(image, worker)}},
    }


def _pod(image: str, resources: dict[str, Any]) -> dict[str, Any]:
    command = ["sleep", "1000"]
    main = {"name": "main", "image": image, "command": command, "securityContext": RESTRICTED, "resources": resources}
    return {"containers": [main], "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0}
