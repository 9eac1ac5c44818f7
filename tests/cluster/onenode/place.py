"""The folders of the cluster, and the names and addresses that it uses."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

NODE = "cnai-node"
NODE_IP = "10.250.0.1"
SERVICES = "10.96.0.0/16"
PODS = "10.244.0.0/24"
NODE_BRIDGE = "cnai-node"
POD_BRIDGE = "cnai-pods"
NETWORK = "cnai"
DOMAIN = "cluster.local"
REGISTRY = "registry.cnai.test"
# Not the usual ports: Debian's packages start etcd and registry as services where systemd runs.
REGISTRY_ADDRESS = "127.0.0.1:5010"
ETCD = "http://127.0.0.1:2389"
ETCD_PEERS = "http://127.0.0.1:2390"
API_SERVER = f"https://{NODE_IP}:6443"
GPU = "nvidia.com/gpu"
GPU_PRODUCT = "NVIDIA-H100-80GB-HBM3"


class ClusterError(Exception):
    """The cluster can't do this on this machine; the message is one line with the reason and the solution."""


@dataclass(frozen=True, slots=True)
class Place:
    """The folders of one cluster: `cache` outlives it, `state` is deleted with it."""

    cache: Path
    state: Path
    gpus: int = 32

    @classmethod
    def from_environment(cls) -> Place:
        """Return the place that the environment names, or the usual one."""
        gpus = os.environ.get("CNAI_FAKE_GPUS", "32")
        if not gpus.isdecimal():
            raise ClusterError(f"CNAI_FAKE_GPUS is {gpus!r}; give a number, 0 for none")
        return cls(
            Path(os.environ.get("CNAI_CLUSTER_CACHE") or "~/.cache/cnai-cluster").expanduser().absolute(),
            Path(os.environ.get("CNAI_CLUSTER_DIR") or "/var/lib/cnai-cluster").absolute(),
            int(gpus),
        )

    @property
    def programs(self) -> Path:
        """Return the folder of the built programs."""
        return self.cache / "bin"

    @property
    def kubeconfig(self) -> Path:
        """Return the administrator's kubeconfig."""
        return self.state / "config" / "admin.kubeconfig"

    @property
    def pulled(self) -> Path:
        """Return the folder in which containerd stores pulled images."""
        return self.cache / "containerd"

    @property
    def containerd(self) -> Path:
        """Return containerd's socket."""
        return self.state / "run" / "containerd.sock"

    def settings(self) -> dict[str, str]:
        """Return the environment in which kubectl and buildah use this cluster and its registry."""
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "PATH": f"{self.programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "CONTAINERS_STORAGE_CONF": str(self.state / "config" / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.state / "config" / "registries.conf"),
            "BUILDAH_ISOLATION": "chroot",
        }
