"""One real hub for all tests of the hub, apps and pages that need one."""

from __future__ import annotations

import pytest

from hub.realhub import RealHub


@pytest.fixture(scope="session")
def hub(tmp_path_factory, starts_processes):
    """A running hub; its person is `ada`."""
    hub = RealHub(tmp_path_factory.mktemp("hub") / "cnai")
    try:
        yield hub.start()
    finally:
        hub.stop()


@pytest.fixture(scope="session")
def api(hub):
    """The hub's REST API with a token of the person."""
    return hub.api()


@pytest.fixture
def state(tmp_path, monkeypatch):
    """The state folder of a hub that has never run."""
    monkeypatch.setenv("CNAI_HOME", str(tmp_path / "cnai"))
    (tmp_path / "cnai" / "hub").mkdir(parents=True)
    return tmp_path / "cnai" / "hub"
