"""A server on one machine has the hours of its flavor, as a pod on a cluster has."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cnai.catalog import Catalog, Flavor, Image
from hub.realhub import PERSON, RealHub, until

SECONDS = 6.0
OFFERED = Catalog(
    (Image(name="torch", title="PyTorch"),),
    (
        Flavor(name="brief", title="Brief", cpu=1, memory_gib=1, max_hours=SECONDS / 3600),
        Flavor(name="long", title="Long", cpu=1, memory_gib=1, default=True),
    ),
)
CONFIG = """
import cnai_hub
c = get_config()
cnai_hub.configure(c)
c.Spawner.poll_interval = 1
"""


@pytest.fixture
def hub(tmp_path, starts_processes):
    config = tmp_path / "config.py"
    config.write_text(CONFIG)
    hub = RealHub(tmp_path / "cnai", CNAI_CATALOG=OFFERED.to_json())
    hub.config = config
    try:
        yield hub.start()
    finally:
        hub.stop()


def _pid(api):
    return api.get(f"users/{PERSON}").json()["servers"][""]["state"]["pid"]


def test_a_server_is_stopped_after_the_hours_of_its_flavor(hub):
    api = hub.api()
    hub.spawn(api, flavor="brief")
    pid, ends = _pid(api), api.get(f"users/{PERSON}").json()["servers"][""]["state"]["ends"]
    assert ends - time.time() < SECONDS  # the next hub knows it, too
    until(lambda: not hub.server(api), "the server is stopped")
    assert not Path(f"/proc/{pid}").exists()
    assert time.time() >= ends
    assert "has run for its flavor's max_hours; stopping it" in hub.log.read_text()
    hub.spawn(api, flavor="long")
    assert "ends" not in api.get(f"users/{PERSON}").json()["servers"][""]["state"]
    os.kill(_pid(api), 0)
