"""A tenant's notebook pod as the hub creates it, with an operator, for tests without a hub."""

from __future__ import annotations

import json
import secrets
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import tenancy
from realcluster import pod

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from realcluster import Cluster

HOME = "/home/cnai"
CATALOG = {
    "image": [{"name": "torch", "title": "PyTorch"}],
    "flavor": [
        {"name": "cpu", "title": "", "cpu": 1, "memory_gib": 1.5, "default": True},
        {"name": "gpu", "title": "", "cpu": 2, "memory_gib": 1.5, "gpus": 1},
    ],
}
QUIET = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Notebook:
    """A namespace with a notebook's pod, and the actions of its user."""

    cluster: Cluster
    namespace: str
    installation: tenancy.Installation
    folder: Path
    pod: str = "notebook"

    def run(self, *command: str, given: str | None = None) -> tuple[int, str]:
        """Run a command in the pod; return its exit code and what it printed."""
        words = [self.cluster.kubectl_path, "exec", "-i", "-n", self.namespace, self.pod, "--", *command]
        more: dict[str, Any] = {"stdin": subprocess.DEVNULL} if given is None else {"input": given}
        done = subprocess.run(words, text=True, capture_output=True, **more)
        return done.returncode, done.stdout + done.stderr

    def beside(self, name: str, image: str) -> Notebook:
        """Return another pod of the same person that runs another image."""
        self.cluster.create(_pod(name, image, self.namespace, {}), self.namespace)
        self.cluster.wait(f"pod/{name}", "condition=Ready", self.namespace)
        return replace(self, pod=name)

    def python(self, source: str) -> str:
        """Write a program to a file of the user, run it, and return its output."""
        code, said = self.run("sh", "-c", f"cat > {HOME}/program.py && cd {HOME} && python program.py", given=source)
        assert code == 0, said
        return said

    @contextmanager
    def operator(self, *, everywhere: bool = False) -> Iterator[subprocess.Popen[bytes]]:
        """Run the operator for this namespace, or for all as administrators do, if no other tests run at the same time.

        If the namespace has Dask clusters, wait until the operator has handled them.
        """
        log = self.folder / f"operator-{secrets.token_hex(2)}.log"
        options = [] if everywhere else ["--namespace", self.namespace]
        with tenancy.operator(self.installation.operator.kubeconfig, log, *options) as process:
            if self.get("daskclusters"):
                tenancy.until(lambda: f"/namespaces/{self.namespace}/" in log.read_text())
            yield process

    def get(self, *words: str) -> list[dict[str, Any]]:
        """Return objects of the namespace."""
        found: list[dict[str, Any]] = self.cluster.get(*words, "-n", self.namespace)["items"]
        return found


@contextmanager
def notebook(
    cluster: Cluster, image: str, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Notebook]:
    """Make a tenant with a home and a notebook's pod; no operator runs yet."""
    with tenancy.installed(cluster, folder) as installation:
        user = f"pat-{installation.suffix}"
        with tenancy.tenant(cluster, installation, user, ["research"]) as namespace:
            cluster.create(claim(), namespace)
            cluster.create(_pod("notebook", image, namespace, environment or {}), namespace)
            cluster.wait("pod/notebook", "condition=Ready", namespace)
            try:
                yield Notebook(cluster, namespace, installation, folder)
            finally:
                tenancy.let_go(cluster, namespace)


def claim(name: str = "home") -> dict[str, Any]:
    """Return a claim that all pods of a person share."""
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def _pod(name: str, image: str, namespace: str, more: Mapping[str, str]) -> dict[str, Any]:
    environment = {
        "HOME": HOME,
        "CNAI_BACKEND": "kubernetes",
        "CNAI_NAMESPACE": namespace,
        "CNAI_CATALOG": json.dumps(CATALOG),
        "CNAI_IMAGE": "torch",
        "CNAI_IMAGE_REFERENCE": image,
        "CNAI_HOME_CLAIM": "home",
        "CNAI_IDLE_SECONDS": "10",
        **QUIET,
        **more,
    }
    made = pod(
        name,
        image,
        ["sleep", "36000"],
        env=[{"name": key, "value": value} for key, value in environment.items()],
        resources={"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        volumeMounts=[{"name": "home", "mountPath": HOME}, {"name": "shm", "mountPath": "/dev/shm"}],
    )
    made["metadata"]["labels"] = {"component": "singleuser-server"}
    made["spec"] |= {
        "serviceAccountName": "notebook",
        "automountServiceAccountToken": True,
        "securityContext": {"fsGroup": 100},
        "volumes": [
            {"name": "home", "persistentVolumeClaim": {"claimName": "home"}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "512Mi"}},
        ],
    }
    return made
