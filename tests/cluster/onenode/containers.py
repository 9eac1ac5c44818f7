"""Removing what containerd leaves when it is stopped: containers, their shims, mounts and control groups."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from onenode import processes
from onenode.place import NETWORK, ClusterError
from onenode.shell import call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onenode.place import Place

_CGROUPS = Path("/sys/fs/cgroup")


def kill(place: Place) -> None:
    """Kill every container of this containerd, which must not run any more, and its shims."""
    bundles = list((place.state / "run" / "containerd" / "io.containerd.runtime.v2.task").glob("*/*"))
    for bundle in bundles:
        _kill_container(bundle)
    for pid in _shims(place):
        processes.end(pid, grace_seconds=0)
    for bundle in bundles:
        with contextlib.suppress(OSError):
            socket = (bundle / "address").read_text().removeprefix("unix://")
            Path(socket).unlink(missing_ok=True)


def unmount(place: Place, *folders: Path) -> None:
    """Unmount everything below these folders, the last mounted first."""
    for mount in reversed([mount for folder in folders for mount in _mounts(folder)]):
        call("umount", "--lazy" if mount.is_relative_to(place.cache) else "--", mount)
    if left := [mount for folder in folders for mount in _mounts(folder)]:
        raise ClusterError(f"still mounted: {', '.join(map(str, left))}; unmount them, then repeat")


def remove_control_groups() -> None:
    """Remove the pods' control groups; one that still has processes stays, and says so."""
    deadline = time.monotonic() + 10
    while groups := [group for pattern in ("kubepods", "*/kubepods") for group in _CGROUPS.glob(pattern)]:
        for group in groups:
            for folder, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
        if time.monotonic() > deadline:
            raise ClusterError(f"control groups still in use: {', '.join(map(str, groups))}")


def remove_traces(place: Place) -> None:
    """Remove what kubelet and the network plugins write where no setting leads elsewhere."""
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and Path(os.readlink(link)).is_relative_to(place.state):
            link.unlink()
    for result in Path("/var/lib/cni/results").glob(f"{NETWORK}-*"):
        result.unlink()
    for folder in (
        "/var/log/containers",
        "/var/lib/cni/results",
        "/var/lib/cni",
        "/run/containerd/s",
        "/run/containerd",
    ):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()


def _kill_container(bundle: Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        pid = int((bundle / "init.pid").read_text())
        # Pids are used again; the control group carries the container's name.
        if bundle.name in Path(f"/proc/{pid}/cgroup").read_text():
            os.kill(pid, signal.SIGKILL)


def _shims(place: Place) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"containerd-shim" in words[0] and str(place.containerd).encode() in words:
                yield int(process.name)


def _mounts(folder: Path) -> list[Path]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    points = [Path(line.split()[1].encode().decode("unicode_escape")) for line in lines]
    return [point for point in points if point.is_relative_to(folder)]
