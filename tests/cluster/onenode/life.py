"""The life cycle of the cluster: start it, report its state, and remove it completely."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from onenode import components, configs, containers, debian, images, network, pki, processes, programs, storage, traces
from onenode.place import GPU, GPU_PRODUCT, NODE, NODE_IP, ClusterError, Place
from onenode.shell import call, works

if TYPE_CHECKING:
    from collections.abc import Iterator

_log = logging.getLogger(__name__)


def up(place: Place) -> None:
    """Start what is not running, and wait until pods can be started."""
    _need_root()
    with _alone(place):
        debian.need(debian.RUNTIME)
        programs.build(place)
        place.state.mkdir(parents=True, exist_ok=True)
        place.state.chmod(0o711)
        traces.remember(place)
        network.up()
        pki.write(place)
        configs.write(place)
        _start(place)
        _node(place)
        _log.info("up")


def down(place: Place) -> None:
    """Remove everything except the caches, even after a crash or an incomplete start."""
    _need_root()
    with _alone(place):
        for name in reversed(components.ORDER):
            if processes.stop(place, name):
                _log.info("stopped %s", name)
        containers.kill(place)
        containers.unmount(place.state, place.pulled, place.cache / "containers")
        network.down()
        containers.remove_control_groups()
        # Unmount before deleting the folder: deletion through a mount would delete files outside the cluster.
        if left := leftovers(place):
            raise ClusterError(f"still there: {'; '.join(left)}; end that, then repeat")
        traces.restore(place)
        if place.state.exists():
            shutil.rmtree(place.state)
        _log.info("down, nothing is left but the cache in %s", place.cache)


def leftovers(place: Place) -> list[str]:
    """Return the cluster's parts on the machine: processes, mounts, bridges, rules, control groups."""
    return [
        *(f"{name} (process {pid})" for name, pid in status(place).items() if pid),
        *(f"process {pid} of a container" for pid in containers.shims(place)),
        *(f"mount {mount}" for folder in (place.state, place.pulled) for mount in containers.mounts(folder)),
        *(f"bridge {bridge}" for bridge in network.bridges()),
        *(f"{family} rules of table {script.splitlines()[0][1:]}" for family, script in network.removals()),
        *(f"control group {group}" for group in containers.control_groups()),
    ]


def restart(place: Place, name: str) -> None:
    """Start one component that was stopped."""
    processes.start(place, name, components.commands(place)[name])


def status(place: Place) -> dict[str, int | None]:
    """Return every component's pid while it runs."""
    return {name: processes.running(place, name) for name in components.ORDER}


def _start(place: Place) -> None:
    commands = components.commands(place)

    def run(*names: str) -> None:
        for name in names:
            if processes.start(place, name, commands[name]):
                _log.info("started %s", name)

    run("registry", "containerd", "etcd")
    processes.wait(place, "etcd", "etcd's port", lambda: _listens("127.0.0.1", 2389), 60)
    run("apiserver")
    processes.wait(place, "registry", "the registry", images.answers, 30)
    images.pause(place)
    processes.wait(place, "apiserver", "the API server", lambda: kubectl_works(place, "get", "--raw", "/readyz"), 120)
    run("controller-manager", "scheduler", "dns", "storage")
    processes.wait(place, "containerd", "containerd", place.containerd.exists, 60)
    run("kubelet", "proxy")


def _node(place: Place) -> None:
    ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    processes.wait(
        place,
        "kubelet",
        "the node",
        lambda: (
            kubectl_works(place, "get", "node", NODE) and kubectl(place, "get", "node", NODE, "-o", ready) == "True"
        ),
        120,
    )
    processes.wait(place, "dns", "DNS", lambda: _listens(NODE_IP, 53), 60)
    account = ("get", "serviceaccount", "default", "-n", "default")
    processes.wait(place, "controller-manager", "service accounts", lambda: kubectl_works(place, *account), 60)
    call(
        place.programs / "kubectl", "apply", "-f", "-", env=place.settings(), given=json.dumps(storage.storage_class())
    )
    if place.gpus:
        _fake_gpus(place)


def _fake_gpus(place: Place) -> None:
    """Add simulated GPUs to the node; kubelet keeps resources that it doesn't know."""
    patch = [
        {"op": "add", "path": f"/status/{part}/{GPU.replace('/', '~1')}", "value": str(place.gpus)}
        for part in ("capacity", "allocatable")
    ]
    kubectl(place, "patch", "node", NODE, "--subresource=status", "--type=json", "-p", json.dumps(patch))
    kubectl(place, "label", "--overwrite", "node", NODE, f"{GPU}.product={GPU_PRODUCT}")


def kubectl(place: Place, *arguments: str) -> str:
    """Run the cluster's kubectl as its administrator."""
    return call(place.programs / "kubectl", *arguments, env=place.settings())


def kubectl_works(place: Place, *arguments: str) -> bool:
    """Tell whether the cluster's kubectl succeeds."""
    return works(place.programs / "kubectl", *arguments, env=place.settings())


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, port)) == 0


def _need_root() -> None:
    if os.geteuid() != 0:
        raise ClusterError(
            "the cluster's processes need root; run this as root, or set KUBECONFIG to a cluster that exists"
        )


@contextmanager
def _alone(place: Place) -> Iterator[None]:
    """Let one command at a time change the cluster."""
    place.cache.mkdir(parents=True, exist_ok=True)
    with (place.cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
