"""Removal of the leftovers of a stopped containerd: containers, their shims, mounts and control groups."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from onenode import processes
from onenode.shell import call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onenode.place import Place

_CGROUPS = Path("/sys/fs/cgroup")
_NETWORK_RESULTS = Path("/var/lib/cni/results")
_GRACE_SECONDS = 15.0


def kill(place: Place) -> None:
    """Kill the containers of this containerd and their shims; containerd must have been stopped."""
    bundles = list((place.state / "run" / "containerd" / "io.containerd.runtime.v2.task").glob("*/*"))
    for bundle in bundles:
        _kill_container(bundle)
    for pid in shims(place):
        processes.end(pid, grace_seconds=0)
    for bundle in bundles:
        with contextlib.suppress(OSError):
            socket = (bundle / "address").read_text().removeprefix("unix://")
            Path(socket).unlink(missing_ok=True)
        for result in _NETWORK_RESULTS.glob(f"*-{bundle.name}-*"):
            result.unlink()


def unmount(*folders: Path) -> None:
    """Unmount everything below these folders, the last mounted first."""
    for mount in reversed([mount for folder in folders for mount in mounts(folder)]):
        call("umount", "--", mount)


def remove_control_groups() -> None:
    """Remove the pods' control groups after their last processes have ended."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while (groups := control_groups()) and time.monotonic() < deadline:
        for group in groups:
            for folder, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()


def control_groups() -> list[Path]:
    """Return the pods' control groups, version 2 or one per controller."""
    return [group for pattern in ("kubepods", "*/kubepods") for group in _CGROUPS.glob(pattern)]


def shims(place: Place) -> Iterator[int]:
    """Yield the pids of the processes that hold this containerd's containers."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"containerd-shim" in words[0] and str(place.containerd).encode() in words:
                yield int(process.name)


def mounts(folder: Path) -> list[Path]:
    """Return the mount points at or below a folder, in the order of mounting."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    points = [Path(line.split()[1].encode().decode("unicode_escape")) for line in lines]
    return [point for point in points if point.is_relative_to(folder)]


def _kill_container(bundle: Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        pid = int((bundle / "init.pid").read_text())
        # Pids are reused, so check the control group, which has the container's name.
        if bundle.name in Path(f"/proc/{pid}/cgroup").read_text():
            os.kill(pid, signal.SIGKILL)
