"""Another account of this machine, where the tests may be one: they run as root in containers."""

from __future__ import annotations

import os
import subprocess

import pytest

NOBODY = 65534
needed = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another account")


def as_another(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a shell program as an account that has nothing to do with ours; `$1`, `$2`, … are its arguments."""
    return subprocess.run(
        ["/bin/sh", "-c", program, "sh", *map(str, arguments)],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
