"""Running commands: the last lines of a failed command's output become the error."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING

from onenode.place import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def call(
    *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, given: str | None = None
) -> str:
    """Run a command and return its output."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            text=True,
            capture_output=True,
            **({"input": given} if given is not None else {"stdin": subprocess.DEVNULL}),
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]} is missing: {error}") from error
    if done.returncode:
        tail = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-15:])
        raise ClusterError(f"`{shlex.join(words)}` failed: {tail}")
    return str(done.stdout)


def works(*command: str | Path, env: Mapping[str, str] | None = None) -> bool:
    """Tell whether a command succeeds."""
    try:
        call(*command, env=env)
    except ClusterError:
        return False
    return True
