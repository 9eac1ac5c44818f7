"""What all tests share: a home of their own, and an engine that is gone afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _temporary_files():
    """A folder for temporary files that goes with the tests: what is killed can't tidy up."""
    with (
        tempfile.TemporaryDirectory(prefix="cnai-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # what failed stays to be looked at
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(scope="session")
def engine_home(tmp_path_factory):
    """A CNAI_HOME with its own engine, ended by pid after the last test."""
    home = tmp_path_factory.mktemp("cnai")
    before = {key: os.environ.get(key) for key in ("CNAI_HOME", "CNAI_STORE")}
    os.environ["CNAI_HOME"] = str(home)
    os.environ.pop("CNAI_STORE", None)
    yield home
    from cnai.backends.local import client as local

    os.environ["CNAI_HOME"] = str(home)
    local.stop()
    for key, value in before.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value


@pytest.fixture
def engine(engine_home, monkeypatch):
    """A running local engine."""
    monkeypatch.setenv("CNAI_HOME", str(engine_home))
    monkeypatch.delenv("CNAI_STORE", raising=False)
    from cnai.backends.local import client as local

    return local.connect()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty CNAI_HOME, without an engine."""
    monkeypatch.setenv("CNAI_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CNAI_STORE", raising=False)
    return tmp_path / "home"


@pytest.fixture
def reachable():
    """A folder that every account of this machine can enter and read; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="cnai-reachable-", dir=os.environ["PYTEST_DEBUG_TEMPROOT"]))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def own_engine(home):
    """A local engine that nobody else uses, ended after the test."""
    from cnai.backends.local import client as local

    yield local.connect()
    local.stop()
