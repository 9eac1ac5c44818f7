"""The hub's configuration as the chart loads it: values become traits, then `hub.extraConfig` calls ours."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import helmchart
import yaml
import z2jh
from tornado.httpclient import AsyncHTTPClient
from traitlets.config.loader import PyFileConfigLoader

if TYPE_CHECKING:
    import pytest
    from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[3]
ETC = "/usr/local/etc/jupyterhub"
CONFIGURATION, VALUES_READER = "jupyterhub_config.py", "z2jh.py"

_NAMES = ("hub", "proxy-api", "proxy-public", "singleuser", "image-pull-secret", "user-scheduler", "priority")


@dataclass(frozen=True)
class Chart:
    """A chart's values, and the folder with the files that it mounts into the hub's pod."""

    defaults: dict[str, Any]
    mounted: Path


def imitated() -> Chart:
    """Return our imitation of the chart."""
    return Chart(z2jh.DEFAULTS, Path(z2jh.__file__).parent / "inpod")


def real(scratch: Path) -> Chart:
    """Return the chart that CNAI_Z2JH_CHART names; the test is skipped without one."""
    folder = helmchart.folder(scratch)
    return Chart(yaml.safe_load((folder / "values.yaml").read_text()), folder / "files" / "hub")


def load(chart: Chart, values: dict[str, Any], etc: Path, patch: pytest.MonkeyPatch) -> Config:
    """Return the configuration of a hub's pod of this release; write the files that the chart mounts to `etc`."""
    for name in (CONFIGURATION, VALUES_READER):
        (etc / name).write_text((chart.mounted / name).read_text().replace(ETC, str(etc)))
    about = {"Release": {"Name": "cnai"}, "Chart": {"Name": "jupyterhub", "Version": "4.4.0"}}
    _mount(etc, {**about, **z2jh.merged(chart.defaults, values)})
    patch.setattr(sys, "path", list(sys.path))
    # The chart's module has the name of our package that imitates the chart.
    patch.delitem(sys.modules, "z2jh")
    # The hub's image has pycurl, tests need none.
    patch.setattr(AsyncHTTPClient, "configure", lambda *_: None)
    for name, value in {
        "POD_NAMESPACE": "cnai",
        "HUB_SERVICE_PORT": "8081",
        "PROXY_API_SERVICE_PORT": "8001",
        "CNAI_HOME": str(etc / "cnai"),
    }.items():
        patch.setenv(name, value)
    loaded: Config = PyFileConfigLoader(CONFIGURATION, path=str(etc)).load_config()
    return loaded


def _mount(etc: Path, values: dict[str, Any]) -> None:
    """Write the release's secret and the names of its objects."""
    prefix = f"{values['fullnameOverride']}-" if values.get("fullnameOverride") else ""
    names = {name: prefix + name for name in _NAMES}
    tokens = {
        f"hub.services.{name}.apiToken": service.get("apiToken", "generated")
        for name, service in values["hub"]["services"].items()
    }
    secret = {"values.yaml": json.dumps(values), **z2jh.new_secrets(), **tokens}
    for folder, files in {"secret": secret, "config": names}.items():
        (etc / folder).mkdir()
        for name, text in files.items():
            (etc / folder / name).write_text(text)
