"""The stock chart with our values, if the chart is available: the API server accepts the manifests from helm."""

from __future__ import annotations

import json

import helmchart
import hubpod
import pytest
import yaml


@pytest.mark.parametrize("overlay", ["development", "production"])
def test_the_api_server_takes_what_helm_makes(cluster, namespace, overlay, tmp_path):
    helm = helmchart.helm(tmp_path)
    files = [f"--values={hubpod.ROOT / name}" for name in ("helm-values.yaml", f"helm-values.{overlay}.yaml")]
    version = json.loads(cluster.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
    made = helm.template("--namespace", namespace, *files, kubernetes=version)
    assert made.returncode == 0, made.stderr
    objects = {"apiVersion": "v1", "kind": "List", "items": [each for each in yaml.safe_load_all(made.stdout) if each]}
    cluster.kubectl("apply", "--dry-run=server", "-n", namespace, "-f", "-", given=objects)
