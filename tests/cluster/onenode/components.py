"""The cluster's processes: pure functions that return their command lines, in the order of their start."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from onenode.place import ETCD, ETCD_PEERS, NODE, NODE_IP, SERVICES

if TYPE_CHECKING:
    from onenode.place import Place

ORDER = (
    "registry",
    "containerd",
    "etcd",
    "apiserver",
    "controller-manager",
    "scheduler",
    "dns",
    "storage",
    "kubelet",
    "proxy",
)


def commands(place: Place) -> dict[str, list[str]]:
    """Return every component's command line, to be run in the state folder."""
    return {
        "registry": ["docker-registry", "serve", "config/registry.yaml"],
        "containerd": ["containerd", "--config", "config/containerd.toml", "--log-level", "warn"],
        "etcd": _etcd(),
        "apiserver": _api_server(place),
        "controller-manager": _controller_manager(place),
        "scheduler": [*_controller(place, "scheduler"), "--kube-api-qps=200", "--kube-api-burst=400"],
        "dns": [str(place.programs / "coredns"), "-conf", "config/Corefile"],
        "storage": _storage(place),
        "kubelet": _kubelet(place),
        "proxy": [str(place.programs / "kube-proxy"), "--config=config/proxy.yaml", "--v=2"],
    }


def _etcd() -> list[str]:
    # A test cluster need not survive a power failure; without fsync it is several times faster.
    return (
        f"etcd --name n --data-dir etcd --listen-client-urls {ETCD} --advertise-client-urls {ETCD} "
        f"--listen-peer-urls {ETCD_PEERS} --initial-advertise-peer-urls {ETCD_PEERS} --initial-cluster n={ETCD_PEERS} "
        "--quota-backend-bytes 4294967296 --unsafe-no-fsync"
    ).split()


def _api_server(place: Place) -> list[str]:
    return [
        str(place.programs / "kube-apiserver"),
        f"--etcd-servers={ETCD}",
        f"--advertise-address={NODE_IP}",
        f"--bind-address={NODE_IP}",
        "--secure-port=6443",
        "--tls-cert-file=pki/apiserver.crt",
        "--tls-private-key-file=pki/apiserver.key",
        "--client-ca-file=pki/ca.crt",
        "--kubelet-certificate-authority=pki/ca.crt",
        "--kubelet-client-certificate=pki/kubelet-client.crt",
        "--kubelet-client-key=pki/kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--service-account-signing-key-file=pki/sa.key",
        "--service-account-key-file=pki/sa.pub",
        "--requestheader-client-ca-file=pki/front-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--proxy-client-cert-file=pki/front.crt",
        "--proxy-client-key-file=pki/front.key",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--admission-control-config-file=config/admission.yaml",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={SERVICES}",
        "--event-ttl=1h",
    ]


def _controller_manager(place: Place) -> list[str]:
    return [
        *_controller(place, "controller-manager"),
        "--use-service-account-credentials=true",
        "--service-account-private-key-file=pki/sa.key",
        "--root-ca-file=pki/ca.crt",
        "--cluster-signing-cert-file=pki/ca.crt",
        "--cluster-signing-key-file=pki/ca.key",
        f"--flex-volume-plugin-dir={place.state}/kubelet/plugins-exec",
        "--resource-quota-sync-period=15s",  # 5 min by default, in which kinds that were just defined are not counted
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]


def _controller(place: Place, name: str) -> list[str]:
    config = f"config/{name}.kubeconfig"
    return [
        str(place.programs / f"kube-{name}"),
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
    ]


def _storage(place: Place) -> list[str]:
    settings = {"PYTHONPATH": Path(__file__).parents[1], "CNAI_CLUSTER_DIR": place.state}
    return ["env", *(f"{name}={value}" for name, value in settings.items()), sys.executable, "-m", "onenode.storage"]


def _kubelet(place: Place) -> list[str]:
    return [
        str(place.programs / "kubelet"),
        "--config=config/kubelet.yaml",
        "--kubeconfig=config/kubelet.kubeconfig",
        f"--hostname-override={NODE}",
        f"--node-ip={NODE_IP}",
        f"--root-dir={place.state}/kubelet",
        "--cert-dir=pki",
        "--v=2",
    ]
