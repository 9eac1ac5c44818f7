"""Tenants on a real cluster: the hub's own account creates them, and every account acts with its own token."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import realcluster
from realcluster import RESTRICTED, Cluster, Refused

from cnai.catalog import Catalog, Flavor, Image
from cnai.labels import HUB
from cnai_hub import tenants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CPU = Flavor(name="cpu", title="", cpu=2, memory_gib=4)
GPU = Flavor(name="gpu", title="", cpu=2, memory_gib=4, gpus=2, groups=("research",))
CATALOG = Catalog(images=(Image(name="torch", title=""),), flavors=(CPU, GPU))
COUNTED = "count/daskclusters.kubernetes.dask.org"
PATIENCE_SECONDS = 360.0


@dataclass(frozen=True)
class Account(Cluster):
    """A cluster accessed with only the token of one service account."""

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
def administered(cluster: Cluster, settings: tenants.Cluster, suffix: str) -> Iterator[None]:
    """Apply the output of `python -m cnai_hub.tenants`, and remove it afterwards; others may do so at the same time.

    Cluster-wide objects get the suffix unless their names must be fixed. Those with fixed names (cluster roles,
    resource definitions) are left for other installations; `leave` removes them.
    """
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": settings.hub_namespace, "labels": labels}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    shared = [each for each in tenants.cluster_manifests(settings) if _shared(each)]
    own = [_renamed(each, suffix) for each in tenants.cluster_manifests(settings) if not _shared(each)]
    with realcluster.alone("administered"):
        apply(cluster, namespace, *shared, *own)
    try:
        yield
    finally:
        remove(cluster, settings.hub_namespace)
        gone = [each for each in own if "namespace" not in each["metadata"]]
        cluster.kubectl("delete", "--ignore-not-found", "-f", "-", given=_list(gone))


def leave(cluster: Cluster) -> None:
    """Remove the objects that installations share, unless another installation still exists."""
    bindings = cluster.get("clusterrolebindings")["items"]
    if not any(each["roleRef"]["name"] == HUB for each in bindings):
        shared = [each for each in tenants.cluster_manifests(tenants.Cluster()) if _shared(each)]
        cluster.kubectl("delete", "--ignore-not-found", "-f", "-", given=_list(shared))


def _shared(manifest: dict[str, Any]) -> bool:
    return manifest["kind"] in {"ClusterRole", "CustomResourceDefinition"}


def _renamed(manifest: dict[str, Any], suffix: str) -> dict[str, Any]:
    """Return the cluster-wide objects of an installation, renamed to names of its own."""
    made: dict[str, Any] = json.loads(json.dumps(manifest))
    if "namespace" not in made["metadata"]:
        made["metadata"]["name"] += f"-{suffix}"
    if "policyName" in made.get("spec", {}):
        made["spec"]["policyName"] += f"-{suffix}"
    return made


def _list(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": manifests}


_going: set[str] = set()


def remove(cluster: Cluster, *namespaces: str) -> None:
    """Request the deletion of namespaces, without the grace period of their pods."""
    cluster.kubectl("delete", "namespace", *namespaces, "--wait=false")
    for each in namespaces:
        cluster.kubectl("delete", "pods", "--all", "-n", each, "--force", "--grace-period=0", "--wait=false")
        let_go(cluster, each)
    _going.update(namespaces)


def let_go(cluster: Cluster, namespace: str) -> None:
    """Remove the finalizers of a stopped operator, which would block the deletion of the namespace forever."""
    free = ("--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    with suppress(Refused):  # no such kind, or an operator was faster
        for each in cluster.get("daskclusters", "-n", namespace)["items"]:
            name = each["metadata"]["name"]
            cluster.kubectl("delete", "daskcluster", name, "-n", namespace, "--wait=false")
            cluster.kubectl("patch", "daskcluster", name, "-n", namespace, *free)


def wait_until_gone(cluster: Cluster) -> None:
    """Wait until all deleted objects no longer exist."""
    if _going:
        cluster.kubectl("wait", "--for=delete", "--timeout=300s", *(f"namespace/{each}" for each in sorted(_going)))
        _going.clear()


@dataclass(frozen=True)
class Installation:
    """An administrator's installation with the hub's account, but without a running hub."""

    settings: tenants.Cluster
    suffix: str
    hub: Account
    operator: Account


@contextmanager
def installed(cluster: Cluster, folder: Path, **about: Any) -> Iterator[Installation]:
    """Install as an administrator does, with these settings of the cluster; remove everything afterwards."""
    suffix = secrets.token_hex(3)
    settings = tenants.Cluster(hub_namespace=f"cnai-hub-{suffix}", registries=cluster.registries, **about)
    with administered(cluster, settings, suffix):
        metadata = {"name": settings.hub_account, "namespace": settings.hub_namespace}
        cluster.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        hub, operator = (
            account(cluster, folder, settings.hub_namespace, name)
            for name in (settings.hub_account, settings.operator_account)
        )
        until(lambda: hub.kubectl("get", "pods,nodes", "-A"))
        yield Installation(settings, suffix, hub, operator)


@contextmanager
def tenant(
    cluster: Cluster, installation: Installation, user: str, groups: list[str], offered: Catalog = CATALOG
) -> Iterator[str]:
    """Create a tenant as the hub does, and remove it afterwards as an administrator does."""
    hub = installation.hub
    namespace, *inside = tenants.manifests(user, groups, offered, installation.settings)
    name = namespace["metadata"]["name"]
    hub.create(namespace)
    try:
        # The API server needs a moment to see a new role binding.
        until(lambda: apply(hub, *inside))
        # Objects of a new resource definition count only after Kubernetes has re-evaluated all quotas.
        until(lambda: COUNTED in cluster.get("resourcequotas", "-n", name)["items"][0]["status"].get("used", ()))
        yield name
    finally:
        remove(cluster, name)


@contextmanager
def operator(kubeconfig: str, log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the hardened operator as a process of this machine."""
    environment = {**os.environ, "KUBECONFIG": kubeconfig, "PYTHONPATH": os.pathsep.join(sys.path)}
    # kr8s writes the kubeconfig's certificate authority to a new file for each client, and never deletes it.
    environment["TMPDIR"] = str(log.parent)
    with log.open("wb") as out:
        command = [sys.executable, "-m", "cnai_hub.kubernetes.operator", *options]
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


def apply(cluster: Cluster, *manifests: dict[str, Any]) -> None:
    """Apply manifests, one after the other, as the hub does."""
    options = ("--server-side", "--force-conflicts", "--field-manager=cnai-hub")
    cluster.kubectl("apply", *options, "-f", "-", given=_list(list(manifests)))


def until(attempt: Callable[[], Any]) -> Any:
    """Repeat an attempt until it is not refused and returns a true value, and return the value."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        begin = time.monotonic()
        try:
            found = attempt()
        except Refused:
            if time.monotonic() > deadline:
                raise
        else:
            if found is not False:
                return found
            assert time.monotonic() < deadline, "it never came true"
        realcluster.rest(begin)


def dask_cluster(name: str, image: str, *, workers: int = 1, gpus: int = 0) -> dict[str, Any]:
    """Return a Dask cluster that a tenant may start."""
    resources: dict[str, Any] = {"limits": {"cpu": "50m", "memory": "32Mi"}}
    worker: dict[str, Any] = {"limits": {**resources["limits"], **({"nvidia.com/gpu": str(gpus)} if gpus else {})}}
    selector = {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    # No targetPort: the resource definition allows only text, but a Service needs a number.
    ports = [{"name": "tcp-comm", "port": 8786}, {"name": "http-dashboard", "port": 8787}]
    scheduler = {"spec": _pod(image, resources), "service": {"type": "ClusterIP", "selector": selector, "ports": ports}}
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {"name": name},
        "spec": {"scheduler": scheduler, "worker": {"replicas": workers, "spec": _pod(image, worker)}},
    }


def _pod(image: str, resources: dict[str, Any]) -> dict[str, Any]:
    main = {"name": "main", "image": image, "command": ["sleep", "1000"], "securityContext": RESTRICTED}
    main |= {"resources": resources, "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]}
    return {"containers": [main], "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0}
