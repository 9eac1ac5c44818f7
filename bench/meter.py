"""Meter: the CPU seconds of all processes that a session starts, including detached ones."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import psutil

ROOTS = (Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup"))


class Meter:
    """Counts with its own control group if it may create one, otherwise over the processes that it finds."""

    def __init__(self) -> None:
        self.group = self._join()

    def _join(self) -> Path | None:
        for root in ROOTS:
            group = root / f"bench-{os.getpid()}"
            with contextlib.suppress(OSError):
                group.mkdir()
                (group / "cgroup.procs").write_text(str(os.getpid()))
                if self._read(group) is not None:
                    return group
        return None

    def _read(self, group: Path) -> float | None:
        with contextlib.suppress(OSError):
            return int((group / "cpuacct.usage").read_text()) / 1e9
        with contextlib.suppress(OSError):
            return int((group / "cpu.stat").read_text().split()[1]) / 1e6
        return None

    def seconds(self) -> float:
        """Return user and system seconds so far."""
        if self.group is not None:
            return self._read(self.group) or 0.0
        return sum(_seconds(process) for process in self._processes())

    def _processes(self) -> list[psutil.Process]:
        """Return this process, this CNAI_HOME's engine, and the descendants of both."""
        from cnai.backends.local import client as local

        found = [psutil.Process()]
        with contextlib.suppress(psutil.Error):
            if engine := local.running():
                found.append(psutil.Process(engine.pid))
        return [*found, *(child for process in found for child in process.children(recursive=True))]

    def settle(self, seconds: float = 120.0) -> None:
        """Wait until the processes use almost no CPU."""
        deadline = time.monotonic() + seconds
        quiet = 0
        while quiet < 3 and time.monotonic() < deadline:
            before = self.seconds()
            time.sleep(0.5)
            quiet = quiet + 1 if self.seconds() - before < 0.05 else 0

    def close(self) -> None:
        """Remove the control group; call this after all other processes in it have ended."""
        if self.group is None:
            return
        with contextlib.suppress(OSError):
            (self.group.parent / "cgroup.procs").write_text(str(os.getpid()))
        for _ in range(50):
            with contextlib.suppress(OSError):
                self.group.rmdir()
                return
            time.sleep(0.1)


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)
