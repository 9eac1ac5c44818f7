"""A run that waits for its engine: what it says, when it gives up, and that its journal has one writer."""

import fcntl
import os
import subprocess
import sys
import threading
import time

import pytest

import cnai
from backends.pods import complaint, pod, when
from cnai.backends import credentials
from cnai.backends.kubernetes import fleet, standing
from cnai.backends.kubernetes import line as patience
from cnai.backends.kubernetes.contact import Contact
from cnai.engine.commands import Wish
from cnai.engine.records import EngineStatus, NodeStatus
from cnai.engine.scribe import Scribe
from cnai.errors import EngineError, RunCancelled, RunFailed, UsageError
from cnai.events import Kind, State
from run.waiting import until


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(patience, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(patience, "CERTAIN_SECONDS", 0.3)
    yield
    ended = [thread for thread in threading.enumerate() if thread.name.startswith("cnai-line-")]
    assert not ended, "the background ends with the run"


@pytest.fixture
def run(server):
    """A run whose engine was asked for and isn't there."""
    run = cnai.train(print, name="fit")
    yield run
    if not run.state.final:
        run.stop()
        run.wait(60)


def _unschedulable(engine):
    node = pod(engine, "worker", runs=False)
    node["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: 1 Insufficient memory."}
    ]
    node["spec"]["containers"][0]["resources"] = {"requests": {"memory": "4Gi"}}
    return node


def test_it_says_what_is_missing_everywhere(run, server):
    assert run.state is State.PENDING
    server.pods.append(_unschedulable(run.record["engine"]))
    until(lambda: run.reason == "no node has 4 GiB of memory free", run.reason)
    (other,) = cnai.runs()
    assert other.reason == run.reason
    from cnai.faces.text import headline, runs_table

    assert "no node has 4 GiB of memory free" in headline(run)
    assert "no node has 4 GiB of memory free" in repr(runs_table([other]))


def test_what_does_not_heal_ends_it(run, server):
    engine = run.record["engine"]
    quota = complaint("ReplicaSet", f"{engine}-default-worker-1", "exceeded quota: tenant")
    quota["lastTimestamp"] = when(-5, time.time())
    server.events.append(quota)
    server.pods.append(_unschedulable(engine))
    with pytest.raises(RunFailed, match="exceeded quota: tenant"):
        run.result(60)
    assert server.clusters == {}
    states = [event.payload["state"] for event in run.events if event.kind is Kind.STATE]
    assert states == ["FAILED"]
    assert cnai.attach("fit").state is State.FAILED


def test_the_deadline_ends_it(server, monkeypatch):
    monkeypatch.setenv("CNAI_NODE_SECONDS", "1")
    run = cnai.train(print)
    server.pods.append(_unschedulable(run.record["engine"]))
    with pytest.raises(RunFailed, match="did not start within 1 s: no node has 4 GiB of memory free"):
        run.result(60)
    assert server.clusters == {}


def test_without_an_operator_it_ends(server, monkeypatch):
    monkeypatch.setattr(standing, "OPERATOR_SECONDS", 0.0)
    monkeypatch.setattr(standing, "HOPELESS_SECONDS", 1.0)
    run = cnai.train(print)
    with pytest.raises(RunFailed, match="ask your administrator whether the Dask operator runs"):
        run.result(60)


def test_stopped_before_its_engine_was_there(run, server):
    run.stop()
    assert run.wait(60).state is State.CANCELLED
    assert server.clusters == {}
    with pytest.raises(RunCancelled, match=r"CANCELLED \(stopped\)"):
        run.result()
    with pytest.raises(UsageError, match="CANCELLED already"):
        run.stop()


def test_other_wishes_wait(run):
    with pytest.raises(UsageError, match=r"can't pause run fit.*its engine has not started yet: the run is PENDING"):
        run.pause()
    with pytest.raises(UsageError, match="can't scale run fit"):
        run.scale(2)
    with pytest.raises(UsageError, match=r"PENDING, not PAUSED; there is nothing to resume"):
        run.resume()


def test_a_person_stopped_the_engine(run, server):
    assert cnai.cluster.stop()
    with pytest.raises(EngineError, match="the engine was stopped; `%cnai attach fit"):
        run.wait(60)
    assert server.clusters == {}
    again = cnai.attach("fit")
    assert list(server.clusters) == [run.record["engine"]]
    assert not credentials.was_stopped(run.record["engine"])
    until(lambda: "being created" in again.reason, again.reason)
    again.stop()
    assert again.wait(60).state is State.CANCELLED


def test_an_engine_that_somebody_else_removed_comes_again(run, server):
    engine = run.record["engine"]
    server.clusters.clear()
    until(lambda: engine in server.clusters, "made again")


def test_nobody_brings_an_engine_back_that_somebody_takes_away_to_end_the_run(run, server):
    with (run._folder.path / ".ending").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server.clusters.clear()
        server.asked.clear()
        until(lambda: len(server.asked) > 5, "it looks again and again")
        assert server.clusters == {}
    until(lambda: run.record["engine"] in server.clusters, "who had taken it away didn't end the run")


def test_looking_and_stopping_start_nothing(run, server):
    cnai.cluster.stop()
    with pytest.raises(EngineError):
        run.wait(60)
    server.asked.clear()
    found = cnai.run.find("fit")
    found.stop()
    assert found.wait(60).state is State.CANCELLED
    assert not [asked for asked in server.asked if asked.startswith("POST")]


def _paused(run):
    scribe = Scribe(run._folder)
    scribe.become(State.RUNNING, world_size=1, max_ranks=4)
    scribe.become(State.PAUSED)
    scribe.close()
    fleet.release(run.record["engine"])


def test_a_paused_run_has_no_engine_until_it_is_resumed(run, server):
    _paused(run)
    until(lambda: run.state is State.PAUSED, run.state)
    run.scale(2)
    assert run._folder.status().world_size == 2
    with pytest.raises(UsageError, match="4 shards; ranks may be 1 to 4"):
        run.scale(5)
    assert server.clusters == {}
    run.resume()
    (made,) = server.clusters.values()
    assert made["metadata"]["name"] == run.record["engine"]
    until(lambda: "being created" in run.reason, run.reason)


def test_scaled_while_its_engine_comes_it_is_resumed_with_so_many_ranks(run, server, monkeypatch):
    _paused(run)
    run.resume()
    with pytest.raises(UsageError, match="4 shards; ranks may be 1 to 4"):
        run.scale(5)
    run.scale(3)
    assert run._folder.status().world_size == 1, "the engine may be there at any moment, and writes that"
    engine = _Engine(run)
    with monkeypatch.context() as there:
        there.setattr(Contact, "alive", lambda _: engine)
        until(lambda: engine.granted, "it is told")
    assert engine.granted == [Wish("resume", 3)]


def test_resuming_is_given_up_when_no_node_comes(run, server, monkeypatch):
    monkeypatch.setenv("CNAI_NODE_SECONDS", "1")
    _paused(run)
    run.resume()
    until(lambda: "can't resume: its nodes did not start within 1 s" in run.reason, run.reason)
    assert run.state is State.PAUSED
    assert server.clusters == {}


def test_an_api_server_that_is_away_ends_nothing(run, server):
    server.pods.append(_unschedulable(run.record["engine"]))
    until(lambda: run.reason.startswith("no node has"), run.reason)
    pods, server.pods = server.pods, None  # its answers make no sense to it any more: it hangs up
    until(lambda: run.reason.startswith("the API server does not answer"), run.reason)
    server.pods = pods
    until(lambda: run.reason.startswith("no node has"), run.reason)
    assert run.state is State.PENDING


@pytest.mark.usefixtures("starts_processes")
def test_a_command_ends_when_its_wish_was_delivered_or_given_up(run, server, monkeypatch):
    _paused(run)
    environment = {**os.environ, "CNAI_NODE_SECONDS": "1"}
    for words, said in ((["resume", "fit"], "resuming"), (["stop", "fit"], "stopping")):
        command = [sys.executable, "-m", "cnai.faces.cli", *words]
        done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        assert said in done.stdout
        assert server.clusters == {}, "nothing is asked for after the command is gone"
    assert run.wait(60).state is State.CANCELLED


class _Engine:
    """The line to a scheduler with two nodes that does what it is asked a moment later."""

    alive = True

    def __init__(self, run):
        self._run, self.granted = run, []

    def status(self):
        nodes = tuple(NodeStatus(address=name, pid=1, memory_mib=1) for name in ("one", "two"))
        return EngineStatus(address="tls://there:8786", pid=1, nodes=nodes)

    def wish(self, run, wish, *, only_ask=False):
        if only_ask:
            return
        self.granted.append(wish)
        if wish.verb == "scale" and wish.ranks < self._run._folder.status().world_size:
            threading.Timer(
                0.3, _written, [self._run, State.RUNNING], {"world_size": wish.ranks, "generation": 1}
            ).start()


def _written(run, state, **status):
    scribe = Scribe(run._folder)
    scribe.become(state, **status)
    scribe.close()


def test_who_asks_for_fewer_ranks_stays_until_nodes_are_given_back(server, monkeypatch):
    run = cnai.train(print, name="fit", ranks=2, nodes=2)
    _written(run, State.RUNNING, world_size=2, max_ranks=4, generation=0)
    engine = _Engine(run)
    monkeypatch.setattr(Contact, "alive", lambda _: engine)
    fleet.resize(run.record["engine"], 3)
    run.scale(2)  # nothing to stay for: no generation will begin
    run.scale(1)
    (staying,) = [thread for thread in threading.enumerate() if thread.name.startswith("cnai-wish-")]
    assert not staying.daemon
    assert fleet.node_count(run.record["engine"]) > 1, "as long as the old generation runs"
    staying.join(60)
    assert fleet.node_count(run.record["engine"]) == 1
    _written(run, State.SUCCEEDED)
    run.wait(60)
    until(lambda: not any(thread.name.startswith("cnai-line-") for thread in threading.enumerate()), "it is followed")
