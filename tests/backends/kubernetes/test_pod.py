"""The engine of pods, as processes of this machine: a scheduler, nodes, and a store that says what is to do."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from cnai.backends.credentials import Credentials
from cnai.engine.commands import Wish
from cnai.engine.control.client import EngineClient
from cnai.engine.records import Record, Room
from cnai.engine.store import Store
from cnai.errors import EngineError
from cnai.events import Kind, State
from cnai.paths import store_root
from cnai.run.handle import Run
from cnai.run.launch import build_spec, capture
from run.test_survival import rank_pids
from run.training import digits
from run.waiting import until

NAME = "gpu-a1b2"
EPOCHS = 12
STEPS = 10 * EPOCHS
PATIENCE_SECONDS = 300.0


class Pods:
    """What Kubernetes does for an engine: keeps its address, starts and ends processes."""

    def __init__(self, home):
        self.home, self.processes, self.clients = home, {}, []
        self.http = _free_port()
        self.folder = home / "engine" / NAME
        self.folder.mkdir(parents=True)
        self.log = (home / "pods.log").open("ab")
        self.status = {"address": f"tls://127.0.0.1:{_free_port()}", "tls": _credentials()}
        (self.folder / "engine.json").write_text(json.dumps(self.status))

    def start(self, what, name=""):
        env = {**os.environ, "CNAI_ENGINE": NAME, "CNAI_HTTP_PORT": str(self.http if what == "scheduler" else 0)}
        command = [sys.executable, "-m", "cnai.backends.kubernetes.pod", what]
        self.processes[name or what] = subprocess.Popen(
            command,
            env={**env, "DASK_WORKER_NAME": name},
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def there(self, what, name=""):
        if (name or what) not in self.processes:
            self.start(what, name)

    def end(self, name, number=signal.SIGTERM):
        process = self.processes.pop(name)
        below = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, number)  # as the init of our images does
        process.wait(100)
        until(lambda: not any(each.is_running() for each in below), f"{name} left nothing")

    def ask(self, question, **parameters):
        data = json.dumps(parameters).encode() if parameters else None
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/{question}", data, timeout=10) as answer:
            return answer.read()

    def idle(self):
        try:
            return json.loads(self.ask("api/v1/check_idle"))["idle_since"]
        except urllib.error.URLError:
            return None

    def client(self):
        def connect():
            try:
                clients.append(
                    EngineClient(self.status["address"], Credentials.from_json(json.dumps(self.status)).security())
                )
            except EngineError:
                return False
            return True

        clients = self.clients
        if not clients or not clients[-1].alive:
            until(connect, "the scheduler answers")
        return clients[-1]

    def names(self):
        try:
            return list(json.loads(self.ask("api/v1/retire_workers", n=0)).values())
        except urllib.error.URLError:
            return []


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _credentials():
    from distributed import Security

    made = Security.temporary()
    return {"ca": made.tls_ca_file, "key": made.tls_scheduler_key, "cert": made.tls_scheduler_cert}


@pytest.fixture
def pods(home, starts_processes):
    """An engine without processes."""
    yield from _pods(home)


def _pods(home):
    made = Pods(home)
    yield made
    for client in made.clients:
        client.close()
    for name in sorted(made.processes, key="scheduler".__eq__):
        made.end(name)
    made.log.close()


@pytest.fixture(scope="module")
def kept(tmp_path_factory, starts_processes):
    """An engine for all tests of this module; each puts back what it takes away."""
    yield from _pods(tmp_path_factory.mktemp("pods"))


@pytest.fixture
def two(kept, monkeypatch):
    """An engine with two nodes."""
    monkeypatch.setenv("CNAI_HOME", str(kept.home))
    monkeypatch.delenv("CNAI_STORE", raising=False)
    for name in ("one", "two"):
        kept.there("node", name)
    kept.there("scheduler")
    until(lambda: len(kept.names()) == 2, "two nodes are there")
    return kept


def write(target, args=(), **given):
    """Put a run into the store as the notebook's backend does: with its engine, for whoever is there to begin it."""
    captured = capture(target, args, {})
    record = Record(who="ada", cwd=os.getcwd(), engine=NAME, room=Room(ranks_per_node=1, cpu=1.0))
    spec = build_spec(captured, {"backend": "debug", **given})
    return Run(Store(store_root()).create(spec, record, captured.payload, captured.code_zip))


def begin(pods, target, args=(), **given):
    """Start a run on an engine that is there."""
    run = write(target, args, **given)
    pods.client().submit(run.id, str(store_root()))
    return run


def read(run, pods, condition):
    """Wait for what the journal says of a run."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition(found := Run(Store(store_root()).folder(run.id))):
        log = pods.home / "pods.log"
        assert time.monotonic() < deadline, f"{found}: {log}: {log.read_text()[-3000:]}"
        time.sleep(0.2)
    return found


def ended(run):
    return run.state.final


def reasons(run):
    return [e.payload["reason"] for e in run.events if e.kind is Kind.STATE and e.payload["state"] == State.RESTARTING]


def begins(run):
    return [e.payload["from_step"] for e in run.events if e.kind is Kind.GENERATION]


def test_the_store_says_what_to_begin(kept, monkeypatch):
    monkeypatch.setenv("CNAI_HOME", str(kept.home))
    run = write(digits, (2, 0), ranks=2)
    for what, name in (("node", "one"), ("scheduler", ""), ("node", "two")):
        kept.there(what, name)
    run = read(run, kept, ended)
    assert run.result(0)[:2] == (20, 2)
    assert len({e.payload["text"] for e in run.events if e.kind is Kind.LOG}) == 2


def going(run):
    return run.state is State.RUNNING and (run.step or 0) >= 15


def test_a_lost_scheduler_is_replaced_and_goes_on(two):
    run = read(begin(two, digits, (EPOCHS,), ranks=2, checkpoint_every=5), two, going)
    ranks = rank_pids(run)
    two.processes.pop("scheduler").kill()
    until(lambda: not any(psutil.pid_exists(pid) for pid in ranks), "the ranks of the lost scheduler end")
    two.start("scheduler")
    run = read(run, two, ended)
    assert run.result(0)[0] == STEPS
    assert reasons(run) == ["the engine was lost and started again"]
    assert len(begins(run)) == 2
    assert begins(run)[1] >= 5


def test_a_scheduler_that_has_to_go_loses_no_step(two):
    run = read(begin(two, digits, (EPOCHS,), ranks=2), two, going)
    two.end("scheduler")
    left = Run(Store(store_root()).folder(run.id))
    assert left.state is State.RESTARTING
    two.start("scheduler")
    run = read(run, two, ended)
    assert run.result(0)[0] == STEPS
    assert begins(run) == [0, left.step]


def test_a_killed_node(two):
    run = read(begin(two, digits, (EPOCHS,), ranks=2, checkpoint_every=5), two, going)
    two.end("two", signal.SIGKILL)
    run = read(run, two, lambda run: run.state is State.RESTARTING)
    assert two.idle() == 0
    two.start("node", "two")
    run = read(run, two, ended)
    assert run.result(0)[0] == STEPS
    assert reasons(run)[0].startswith("node 1 was lost; continuing from step-") or "node 0 was lost" in reasons(run)[0]


def test_a_node_that_has_to_go_ends_at_a_step(two):
    run = read(begin(two, digits, (EPOCHS,), ranks=2), two, going)
    two.start("node", "three")
    two.end("two")
    run = read(run, two, ended)
    assert run.result(0)[0] == STEPS
    assert reasons(run) == ["its node is shutting down"]
    first, second = begins(run)
    assert first == 0
    assert second >= 15
    two.end("three")


def test_code_that_knows_no_steps_starts_again_elsewhere(two):
    def plain():
        import time

        print("on", flush=True)
        time.sleep(1000)

    run = read(begin(two, plain, infra_retries=0), two, lambda run: run.logs())
    two.end(next(each["name"] for each in two.names() if each["busy"]))
    run = read(run, two, lambda run: len(begins(run)) == 2 and run.state is State.RUNNING)
    assert reasons(run) == ["its node is shutting down"]
    two.client().wish(run.id, Wish("stop"))
    assert read(run, two, ended).state is State.CANCELLED


def test_idle_is_when_nothing_goes_on(two):
    until(lambda: two.idle(), "an engine without a run is idle")
    run = begin(two, digits, (EPOCHS,), ranks=2)
    client = two.client()
    assert two.idle() == 0
    read(run, two, going)
    client.wish(run.id, Wish("pause"))
    read(run, two, lambda run: run.state is State.PAUSED)
    assert two.idle() > 0
    client.wish(run.id, Wish("resume"))
    read(run, two, lambda run: run.state is State.RUNNING)
    assert two.idle() == 0
    run = read(run, two, ended)
    assert run.result(0)[0] == STEPS
    until(lambda: two.idle(), "idle again")
    client.submit(run.id, str(store_root()))  # asked again after a lost answer
    assert two.idle() > 0


def test_paused_stays_paused_past_its_scheduler(two):
    run = begin(two, digits, (EPOCHS,), ranks=2)
    read(run, two, going)
    two.client().wish(run.id, Wish("pause"))
    read(run, two, lambda run: run.state is State.PAUSED)
    two.end("scheduler")
    two.start("scheduler")
    until(lambda: two.idle(), "a paused run is not going on")
    two.client().wish(run.id, Wish("resume"))
    assert read(run, two, ended).result(0)[0] == STEPS


def test_nodes_follow_the_ranks_and_the_rest_can_go(two):
    run = read(begin(two, digits, (EPOCHS,), ranks=2), two, going)
    assert sorted((each["name"], each["busy"]) for each in two.names()) == [("one", True), ("two", True)]
    two.client().wish(run.id, Wish("scale", 1))
    read(run, two, lambda run: run.world_size == 1 and run.state is State.RUNNING)
    answer = json.loads(two.ask("api/v1/retire_workers", n=1))
    (free, busy) = answer.values()
    assert (free["busy"], busy["busy"]) == (False, True)
    two.end(free["name"])
    assert read(run, two, ended).result(0)[:2] == (STEPS, 1)
    assert not reasons(run)


def test_runs_on_all_nodes_take_turns(two):
    runs = [begin(two, digits, (3,), ranks=2, name=name) for name in ("first", "second", "third")]
    for run in [read(run, two, ended) for run in runs]:
        assert run.result(0)[:2] == (30, 2)
        assert len(begins(run)) == 1


def test_what_a_wish_ends_may_still_wait_for_its_nodes(two):
    run = begin(two, digits, (1,), ranks=3)
    read(run, two, begins)
    two.client().wish(run.id, Wish("stop"))
    assert read(run, two, ended).state is State.CANCELLED


def test_all_nodes_or_none(pods, monkeypatch):
    monkeypatch.setenv("CNAI_NODE_SECONDS", "1")
    run = write(digits, (1,), ranks=2)
    pods.start("scheduler")
    run = read(run, pods, ended)
    assert run.reason == "2 nodes needed, 0 found within 1 s"
    until(pods.idle, "nothing goes on any more")


def test_questions_of_no_sense(two):
    until(two.idle, "the scheduler answers")
    for body in (b"", b"[]", b'{"n": "all"}', b'{"n": -1}', b'{"n": true}'):
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(f"http://127.0.0.1:{two.http}/api/v1/retire_workers", body, timeout=10)
    for path in ("api/v1/adaptive_target", "info/main/workers.html", "metrics", "json/counts.json"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            two.ask(path)
    assert two.ask("health") == b"ok"


def test_pods_listen_at_their_own_address_and_keep_their_files_private(two):
    until(two.idle, "the scheduler answers")
    kept = [psutil.Process(process.pid) for process in two.processes.values()]
    processes = [each for process in kept for each in [process, *process.children(recursive=True)]]
    sockets = [socket for process in processes for socket in process.net_connections("inet")]
    assert {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
    locks = [Path(file.path) for process in processes for file in process.open_files()]
    folders = {path.parent for path in locks if path.suffix == ".dirlock"}
    assert len(folders) == 3
    assert {(stat.S_IMODE(folder.stat().st_mode), folder.stat().st_uid) for folder in folders} == {
        (0o700, os.geteuid())
    }


def test_two_schedulers_of_one_engine_do_not_work_at_once(two):
    until(two.idle, "the scheduler answers")
    two.processes["first"] = two.processes.pop("scheduler")
    two.start("scheduler")
    two.client().status()
    two.end("first")
    until(two.idle, "the second one takes over")


@pytest.mark.usefixtures("starts_processes")
def test_without_its_engine_it_says_why(home, monkeypatch):
    monkeypatch.delenv("CNAI_ENGINE", raising=False)
    done = subprocess.run(
        [sys.executable, "-m", "cnai.backends.kubernetes.pod", "node"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.strip().endswith("CNAI_ENGINE names no engine; set it to the name of the Dask cluster")
