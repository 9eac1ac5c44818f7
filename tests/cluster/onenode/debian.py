"""The Debian packages of the cluster, which are installed if they are missing and this machine allows it."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from onenode.place import ClusterError
from onenode.shell import call

_log = logging.getLogger(__name__)
# A command in PATH or a file, and the package that contains it.
RUNTIME = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "ip": "iproute2",
    "buildah": "buildah",
    "docker-registry": "docker-registry",
    "mmdebstrap": "mmdebstrap",
}
COMPILER = {"gcc": "gcc", "/usr/include/stdlib.h": "libc6-dev"}


def need(table: dict[str, str]) -> None:
    """Install missing packages; ClusterError names them if that is impossible."""
    missing = sorted({package for command, package in table.items() if not _there(command)})
    if not missing:
        return
    advice = f"install it first: apt-get install {' '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ClusterError(
            f"the cluster needs {', '.join(missing)}, which only root on Debian gets installed; {advice}"
        )
    _log.info("installing %s", " ".join(missing))
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        call("apt-get", "update", "-qq", env=quiet)
        call("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=quiet)
    except ClusterError as error:
        raise ClusterError(f"the cluster needs {', '.join(missing)}; {advice} ({error})") from error


def _there(command: str) -> bool:
    return Path(command).exists() if command.startswith("/") else shutil.which(command) is not None
