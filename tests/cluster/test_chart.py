"""The stock chart with our values, if the chart is available: the API server accepts the manifests from helm."""

from __future__ import annotations

import os
import shutil
import subprocess

import hubpod
import pytest
import yaml


@pytest.mark.parametrize("overlay", ["development", "production"])
def test_the_api_server_takes_what_helm_makes(cluster, namespace, overlay):
    chart = os.environ.get("CNAI_Z2JH_CHART")
    if not chart:
        pytest.skip("CNAI_Z2JH_CHART names no chart: a folder or archive of Zero to JupyterHub 4.4")
    helm = shutil.which("helm") or (cluster.place and shutil.which("helm", path=str(cluster.place.programs)))
    if not helm:
        pytest.skip("helm is not in PATH; `python -m onenode build helm` builds one")
    files = [f"--values={hubpod.ROOT / name}" for name in ("helm-values.yaml", f"helm-values.{overlay}.yaml")]
    command = [helm, "template", "cnai", chart, "--namespace", namespace, *files]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    objects = {"apiVersion": "v1", "kind": "List", "items": [each for each in yaml.safe_load_all(made) if each]}
    cluster.kubectl("apply", "--dry-run=server", "-n", namespace, "-f", "-", given=objects)
