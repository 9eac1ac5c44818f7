"""Backends by name, what they share, and the records that they read and write."""

import json

import pytest

from cnai import backends
from cnai.backends import credentials
from cnai.backends.credentials import Certificate, Credentials
from cnai.backends.engines import Engines, PodEngine
from cnai.backends.local.process import LocalEngine, status_file
from cnai.engine.control import client
from cnai.engine.records import EngineStatus, NodeStatus, Record, Status
from cnai.engine.store import Store
from cnai.errors import EngineError, UnknownName
from cnai.events import State
from cnai.paths import engine_dir, store_root
from cnai.run.handle import Run
from cnai.spec import Ranks, RunSpec, Target

TLS = {"ca": "CA", "key": "KEY", "cert": "CERT"}


def test_every_name_has_a_backend():
    assert sorted(backends.NAMES) == ["debug", "kubernetes", "local"]
    assert {type(backends.get(name)).__name__ for name in (*backends.NAMES, "tcp://127.0.0.1:9")} == {
        "DebugBackend", "KubernetesBackend", "LocalBackend", "AddressBackend",
    }  # fmt: skip
    assert backends.get("tcp://127.0.0.1:9") is backends.get("tcp://127.0.0.1:9"), "one line per process and address"


def test_an_unknown_name_is_one_line():
    with pytest.raises(UnknownName, match=r"unknown backend 'locale'; did you mean 'local'"):
        backends.get("locale")


def _engine_json(**more):
    return json.dumps({"address": "tls://there:8786", "tls": TLS, **more})


def test_an_engine_json_of_another_version_is_read():
    known = LocalEngine.from_json(_engine_json(pid=7, started=1.5, of_later_versions={"x": 1}))
    assert known == LocalEngine(address="tls://there:8786", tls=Certificate(**TLS), pid=7, started=1.5)
    assert Credentials.from_json(_engine_json(pid=7)) == Credentials(address=known.address, tls=known.tls)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"address": "x"}', _engine_json(tls={}), _engine_json(tls=None)])
def test_what_is_no_engine_json_runs_no_engine(home, text):
    engine_dir().mkdir(parents=True)
    status_file().write_text(text)
    assert not backends.get("local").status()
    (engine_dir() / "gpu-1").mkdir()
    (engine_dir() / "gpu-1" / "engine.json").write_text(text)
    with pytest.raises(EngineError, match="engine 'gpu-1' is unknown here: its folder has no credentials"):
        credentials.read("gpu-1")


def test_an_engine_json_has_the_keys_it_always_had_and_one_reader(home):
    engine_dir().mkdir(parents=True)
    LocalEngine(address="tls://there:8786", tls=Certificate(**TLS), pid=7, started=1.5).write(engine_dir())
    assert json.loads(status_file().read_text()) == json.loads(_engine_json(pid=7, started=1.5, ends_by=0.0))
    assert status_file().stat().st_mode & 0o777 == 0o600
    assert [file.name for file in engine_dir().iterdir()] == ["engine.json"]
    credentials.issue("gpu-1", "tls://there:8786")
    assert json.loads((engine_dir() / "gpu-1" / "engine.json").read_text()).keys() == {"address", "tls"}


def test_what_an_engine_answers_is_a_record():
    node = {"address": "tls://node:1", "pid": 2, "memory_mib": 3.5}
    told = {"address": "tls://there:8786", "pid": 1, "nodes": [node | {"new": 1}], "runs": {"fit": "RUNNING"}, "new": 1}
    status = EngineStatus.of(told)
    assert status.nodes == (NodeStatus(**node),)
    assert status.runs == {"fit": State.RUNNING}
    assert json.loads(repr(status)) == {key: told[key] for key in ("address", "pid", "runs")} | {"nodes": [node]}


def test_engines_say_what_they_are():
    assert repr(Engines()) == "no engine is running; it starts with the first run"
    assert repr(Engines(none="none here")) == "none here"
    busy = PodEngine(engine="gpu-1", flavor="gpu", nodes=2, wanted_nodes=3, gpus=4, runs=("fit-1", "fit-2"),
                     idle_seconds=None, reason="1 node is missing")  # fmt: skip
    assert repr(Engines([busy])) == "gpu-1 (gpu) · 2 of 3 nodes · 4 GPUs · runs fit-1, fit-2 · 1 node is missing"


@pytest.fixture
def of_debug(home):
    """A debug run that another process is in the middle of."""
    spec = RunSpec(target=Target("function", "fit"), ranks=Ranks(1, 1), backend="debug")
    folder = Store(store_root()).create(spec, Record(), b"", b"")
    folder.write_status(Status(state=State.RUNNING))
    return Run(folder)


def test_a_debug_run_of_another_process_takes_no_wishes(of_debug):
    for ask in (of_debug.follow, of_debug.stop, of_debug.pause):
        with pytest.raises(EngineError, match="a debug run has no engine"):
            ask()
    with pytest.raises(TimeoutError, match="it keeps running"):
        of_debug.wait(0.01)


class _Wire:
    """A Dask client whose scheduler is gone or not, as the test says."""

    def __init__(self, address, **_):
        self.address, self.status = address, "running"

    def subscribe_topic(self, *_):
        """Hear nothing."""

    def close(self):
        """Hang up."""
        self.status = "closed"


def test_an_address_has_one_line_per_process_until_it_is_lost(monkeypatch):
    monkeypatch.setattr(client, "_knock", lambda _: None)
    monkeypatch.setattr("distributed.Client", _Wire)
    backend = backends.get("tcp://127.0.0.1:7")
    first = backend._connect()
    assert backend._connect() is first
    first._dask.status = "closed"
    assert backend._connect() is not first
