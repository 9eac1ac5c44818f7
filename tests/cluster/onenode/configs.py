"""The components' configuration files: pure functions from a place to texts; comments explain unusual settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from onenode.place import DOMAIN, NETWORK, NODE, NODE_IP, POD_BRIDGE, PODS, REGISTRY, REGISTRY_ADDRESS

if TYPE_CHECKING:
    from onenode.place import Place

PAUSE = f"{REGISTRY}/cnai/pause:1"


def write(place: Place) -> None:
    """Write only files that differ: kube-proxy exits when its file is rewritten, even with the same text."""
    for name, text in files(place).items():
        path = place.state / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            new = path.with_name(f"{path.name}.new")
            new.write_text(text)
            new.rename(path)


def files(place: Place) -> dict[str, str]:
    """Return every file, by its name below the state folder."""
    return {
        "config/containerd.toml": _containerd(place),
        f"registries/{REGISTRY}/hosts.toml": _pull_hosts(),
        "cni/10-cnai.conflist": _json(_pod_network(place)),
        "config/admission.yaml": _json(_admission()),
        "config/resolv.conf": f"nameserver {NODE_IP}\n",
        "config/kubelet.yaml": _json(_kubelet(place)),
        "config/proxy.yaml": _json(_proxy(place)),
        "config/Corefile": _dns(place),
        "config/registry.yaml": _json(_registry(place)),
        "config/storage.conf": _build_storage(place),
        "config/registries.conf": _push_hosts(),
    }


def _json(document: object) -> str:
    """Return the document as JSON, which is YAML too."""
    return json.dumps(document, indent=1) + "\n"


def _containerd(place: Place) -> str:
    state = place.state
    # oom_score: containers that may not lower their score (no CAP_SYS_RESOURCE) would not start.
    # netns, opt, Root: everything stays below our folder, so that one removal removes it. Only images outlive it: to
    # unpack PyTorch's takes two minutes. containerd and kubelet treat removed containers as if the node had rebooted.
    return f"""version = 2
root = "{place.pulled}"
state = "{state}/run/containerd"
oom_score = 0
[grpc]
  address = "{place.containerd}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{state}/run/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    discard_unpacked_layers = true
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{state}/run/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{state}/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{state}/registries"
"""


def _pull_hosts() -> str:
    where = f"http://{REGISTRY_ADDRESS}"
    return f'server = "{where}"\n[host."{where}"]\n  capabilities = ["pull", "resolve"]\n'


def _push_hosts() -> str:
    """Return the configuration with which buildah pulls by the name that pods use, and pushes by the address."""
    entry = '[[registry]]\nprefix = "{}"\nlocation = "{}"\ninsecure = true\n'
    return "".join(entry.format(name, REGISTRY_ADDRESS) for name in (REGISTRY, REGISTRY_ADDRESS))


def _build_storage(place: Place) -> str:
    return (
        f'[storage]\ndriver = "overlay"\ngraphroot = "{place.cache}/containers"\n'
        f'runroot = "{place.state}/run/containers"\n'
    )


def _registry(place: Place) -> dict[str, object]:
    return {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": f"{place.cache}/registry"}, "delete": {"enabled": True}},
        "http": {"addr": REGISTRY_ADDRESS},
    }


def _pod_network(place: Place) -> dict[str, object]:
    return {
        "cniVersion": "1.0.0",
        "name": NETWORK,
        "plugins": [
            {
                "type": "bridge",
                "bridge": POD_BRIDGE,
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": f"{place.state}/addresses",
                    "ranges": [[{"subnet": PODS}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }


def _admission() -> dict[str, object]:
    pod_security = {
        "apiVersion": "pod-security.admission.config.k8s.io/v1",
        "kind": "PodSecurityConfiguration",
        "defaults": {
            "enforce": "baseline",
            "enforce-version": "latest",
            "warn": "restricted",
            "warn-version": "latest",
            "audit": "restricted",
            "audit-version": "latest",
        },
        "exemptions": {"namespaces": ["kube-system"]},
    }
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": [{"name": "PodSecurity", "configuration": pod_security}],
    }


def _kubelet(place: Place) -> dict[str, object]:
    state = place.state
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": f"unix://{place.containerd}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{state}/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{state}/pki/kubelet.crt",
        "tlsPrivateKeyFile": f"{state}/pki/kubelet.key",
        "clusterDomain": DOMAIN,
        "clusterDNS": [NODE_IP],
        "resolvConf": f"{state}/config/resolv.conf",
        "failSwapOn": False,
        "maxPods": 200,
        "serializeImagePulls": False,
        # Don't evict pods or delete images when other programs fill the disk.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "200Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "podLogsDir": f"{state}/log/pods",
        "volumePluginDir": f"{state}/kubelet/plugins-exec",
    }


def _proxy(place: Place) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": PODS,
        "hostnameOverride": NODE,
        "nodePortAddresses": [f"{NODE_IP}/32"],
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "clientConnection": {"kubeconfig": f"{place.state}/config/proxy.kubeconfig"},
        # The kernel's own limits stay as they are.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _dns(place: Place) -> str:
    return f""".:53 {{
  bind {NODE_IP}
  errors
  kubernetes {DOMAIN} in-addr.arpa {{
    kubeconfig {place.kubeconfig}
    pods insecure
    ttl 5
  }}
  cache 5
}}
"""
