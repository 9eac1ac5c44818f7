"""A notebook's pod without its hub: the same namespace, account, home and environment, and no server in it."""

from __future__ import annotations

import json
import secrets
import textwrap
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from realcluster import RESTRICTED
from tenancy import until

from cnai.catalog import Catalog, Flavor, Image

if TYPE_CHECKING:
    from realcluster import Cluster

HOME = "/home/cnai"
PRODUCT = "nvidia.com/gpu.product"


def catalog(reference: str, product: str) -> Catalog:
    """Return a catalog with flavors that fit many times on a small machine, and with one image that can't be pulled."""
    size: dict[str, Any] = {"cpu": 1, "memory_gib": 2}
    images = (
        Image(name="torch", title="PyTorch", reference=reference, default=True),
        Image(name="missing", title="Missing", reference=f"{reference.partition('@')[0]}@sha256:{'0' * 64}"),
    )
    flavors = (
        Flavor(name="small", title="Small", **size, default=True),
        Flavor(name="gpu-h100", title="H100", **size, gpus=1, gpu_product=product),
        Flavor(name="gpu-h100-x3", title="3 H100", **size, gpus=3, gpu_product=product),
        Flavor(name="gpu-none", title="Rare", **size, gpus=1, gpu_product="NVIDIA-Nonesuch"),
    )
    return Catalog(images, flavors)


def claim(namespace: str, storage_class: str | None) -> dict[str, Any]:
    """Return the claim of a person's home."""
    spec: dict[str, Any] = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    if storage_class:
        spec["storageClassName"] = storage_class
    metadata = {"name": "home", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


@dataclass(frozen=True)
class Notebook:
    """A pod that runs Python programs as a kernel would."""

    cluster: Cluster
    namespace: str
    image: str
    offered: Catalog
    environment: dict[str, str] = field(default_factory=dict)
    name: str = "notebook"

    def start(self) -> Notebook:
        """Start the pod and wait until it runs."""
        self.cluster.create(self._manifest(), self.namespace)
        self.cluster.wait(f"pod/{self.name}", "condition=Ready", self.namespace)
        return self

    def again(self) -> Notebook:
        """Return another pod of the same person."""
        return replace(self, name=f"notebook-{secrets.token_hex(2)}").start()

    def kill(self) -> None:
        """Kill the pod with all of its processes at once."""
        words = ("delete", "pod", self.name, "-n", self.namespace, "--grace-period=0", "--force")
        self.cluster.kubectl(*words)
        until(
            lambda: (
                not self.cluster.get("pods", "-n", self.namespace, f"--field-selector=metadata.name={self.name}")[
                    "items"
                ]
            )
        )

    def write(self, name: str, text: str) -> None:
        """Write a file into the home."""
        self._exec("python", "-c", "import sys; open(sys.argv[1], 'w').write(sys.argv[2])", f"{HOME}/{name}", text)

    def python(self, code: str, **environment: str) -> Any:
        """Run a program in the home and return the JSON that it prints last."""
        said = self._exec(*_environment(environment), "python", "-c", textwrap.dedent(code))
        return json.loads(said.splitlines()[-1])

    def cnai(self, *words: str, **environment: str) -> str:
        """Run the command, and return its output whether it fails or not."""
        line = 'cnai "$@" 2>&1; true'
        return self._exec(*_environment(environment), "sh", "-c", line, "sh", *words)

    def leave_running(self, code: str) -> None:
        """Start a program in the background; it runs until it ends or the pod is killed."""
        self._exec("sh", "-c", 'nohup python -c "$1" > left.log 2>&1 &', "sh", textwrap.dedent(code))

    def read(self, name: str) -> str:
        """Return a file of the home, empty if there is none."""
        return self._exec("sh", "-c", f"cat {HOME}/{name} 2>/dev/null; true")

    def _exec(self, *words: str) -> str:
        return self.cluster.kubectl("exec", "-n", self.namespace, self.name, "--", *words)

    def _manifest(self) -> dict[str, Any]:
        environment = {
            "HOME": HOME,
            "CNAI_BACKEND": "kubernetes",
            "CNAI_NAMESPACE": self.namespace,
            "CNAI_CATALOG": self.offered.to_json(),
            "CNAI_IMAGE": "torch",
            "CNAI_IMAGE_REFERENCE": self.image,
            "CNAI_FLAVOR": "small",
            "CNAI_HOME_CLAIM": "home",
            **self.environment,
        }
        container = {
            "name": "notebook",
            "image": self.image,
            "args": ["sleep", "infinity"],
            "workingDir": HOME,
            "env": [{"name": key, "value": value} for key, value in environment.items()],
            "securityContext": RESTRICTED,
            "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
            "volumeMounts": [{"name": "home", "mountPath": HOME}],
        }
        spec = {
            "serviceAccountName": "notebook",
            "automountServiceAccountToken": True,
            "terminationGracePeriodSeconds": 0,
            "restartPolicy": "Never",
            "securityContext": {"fsGroup": 100},
            "containers": [container],
            "volumes": [{"name": "home", "persistentVolumeClaim": {"claimName": "home"}}],
        }
        labels = {"component": "singleuser-server"}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": self.name, "labels": labels}, "spec": spec}


def _environment(given: dict[str, str]) -> list[str]:
    return ["env", *(f"{key}={value}" for key, value in given.items())]
