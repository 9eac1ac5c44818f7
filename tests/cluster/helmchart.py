"""The chart itself, which is in no registry of packages and not ours to ship, and the helm that installs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from onenode.place import Place

if TYPE_CHECKING:
    from collections.abc import Mapping

OLDEST = "1.32.0"
"""The oldest Kubernetes that docs/administrators.md allows; helm otherwise assumes the one that it was built with."""


def folder(scratch: Path) -> Path:
    """Return the folder of the chart that CNAI_Z2JH_CHART names; the test is skipped without one."""
    given = os.environ.get("CNAI_Z2JH_CHART")
    if not given:
        pytest.skip("CNAI_Z2JH_CHART names no chart: a folder or archive of Zero to JupyterHub 4.4")
    found = Path(given)
    if found.is_file():
        with tarfile.open(found) as archive:
            archive.extractall(scratch, filter="data")
        found = scratch / "jupyterhub"
    if not (found / "values.schema.json").exists():
        pytest.skip(f"{found} has no values.schema.json; in a checkout, run its tools/generate-json-schema.py first")
    return found


@dataclass(frozen=True)
class Helm:
    """helm with the chart."""

    program: str
    chart: Path

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run helm; a failure is not an exception."""
        return subprocess.run([self.program, *words], capture_output=True, text=True)

    def template(self, *options: str, kubernetes: str = OLDEST) -> subprocess.CompletedProcess[str]:
        """Render the chart's manifests."""
        return self("template", "cnai", str(self.chart), f"--kube-version={kubernetes}", *options)

    def install(self, namespace: str, values: Mapping[str, Any]) -> None:
        """Install the chart as release `cnai`, or upgrade it, as docs/administrators.md says."""
        words = ("upgrade", "--install", "cnai", str(self.chart), "--namespace", namespace, "--values=-")
        done = subprocess.run([self.program, *words], capture_output=True, text=True, input=json.dumps(values))
        assert done.returncode == 0, done.stdout + done.stderr


def helm(scratch: Path) -> Helm:
    """Return helm with the chart; the test is skipped if one of them is missing."""
    chart = folder(scratch)
    program = shutil.which("helm") or shutil.which("helm", path=str(Place.from_environment().programs))
    if program is None:
        pytest.skip("helm is not in PATH; `PYTHONPATH=tests/cluster python -m onenode build helm` builds one")
    return Helm(program, chart)
