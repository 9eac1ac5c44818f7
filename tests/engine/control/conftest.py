"""Async tests run on a clock that only they turn: an hour of waiting passes at once."""

import inspect

import pytest

from engine.control.clock import Clock
from engine.control.place import World


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    given = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    given["world"].clock.run(pyfuncitem.obj(**given))
    return True


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A store, and an engine whose nodes are not there yet."""
    monkeypatch.setenv("CNAI_HOME", str(tmp_path))
    monkeypatch.delenv("CNAI_STORE", raising=False)
    clock = Clock(monkeypatch)
    made = World(clock)
    yield made
    assert made.open_journals() == []
