"""What all tests share: a home of their own, an engine that is gone afterwards, and a guard over new processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

LONGEST = [
    *("test_pod.py", "test_survival.py", "test_workbench.py", "test_journey.py", "test_publishing.py"),
    *("test_jupyterlab.py", "test_in_browser.py", "test_notebooks.py"),
]
"""Files that take longest, and come first: the others fill the time until all workers end together."""

_LARGE = re.compile(r"python|node|chrom|os\.")
"""Programs that take time, and copies of this process; libraries ask ldconfig or nvidia-smi at any moment."""
_guarded: pytest.Item | None = None


def pytest_configure():
    """Let Ctrl-C interrupt what tests start: children of a shell's background job inherit that SIGINT is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.addaudithook(_refuse)


def pytest_collection_modifyitems(items):
    """Mark the tests that start processes, and put the longest files first."""
    for item in items:
        if "starts_processes" in item.fixturenames:
            item.add_marker("process")
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """Guard the fixtures of a test that starts no processes."""
    return (yield from _guarding(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Guard a test that starts no processes."""
    return (yield from _guarding(item))


def _guarding(item):
    global _guarded
    _guarded = None if {"starts_processes", "starts_children"} & set(item.fixturenames) else item
    try:
        return (yield)
    finally:
        _guarded = None


def _refuse(event, arguments):
    if _guarded is None or event not in {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}:
        return
    what = Path(os.fsdecode(arguments[0])).name if event == "subprocess.Popen" else event
    if _LARGE.match(what):
        pytest.fail(f"{_guarded.nodeid} starts a process ({what}): it, or its fixture, must ask for `starts_processes`")


@pytest.fixture(scope="session")
def starts_processes():
    """Say that a test, or a fixture, starts processes: `make check` goes without it."""


@pytest.fixture(scope="session")
def starts_children():
    """Say that a test starts processes that load little and end at once: `make check` has it."""


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


@pytest.fixture(scope="session", autouse=True)
def _home(_temporary_files, tmp_path_factory):
    """The CNAI_HOME of tests that ask for no other: none sees that of the person who runs them."""
    home = tmp_path_factory.mktemp("cnai")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNAI_HOME", str(home))
        patch.delenv("CNAI_STORE", raising=False)
        yield home


@pytest.fixture(scope="session")
def engine_home(_home, starts_processes):
    """A CNAI_HOME with its own engine, ended by pid after the last test."""
    yield _home
    from cnai.backends.local import client as local

    local.stop()


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
def own_engine(home, starts_processes):
    """A local engine that nobody else uses, ended after the test."""
    from cnai.backends.local import client as local

    yield local.connect()
    local.stop()
