"""The engine of pods, as processes of this machine: a scheduler, nodes, and a store that says what is to do."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import psutil
import pytest

from cnai.backends.local import security
from cnai.engine.client import EngineClient
from cnai.engine.store import Store
from cnai.errors import EngineError
from cnai.events import Kind, State
from cnai.paths import store_root
from cnai.run.handle import Run
from cnai.run.launch import build_spec, capture
from run.training import digits
from run.waiting import until

NAME = "gpu-a1b2"
EPOCHS = 12
STEPS = 10 * EPOCHS


class Pods:
    """What Kubernetes does for an engine: keeps its address, starts and ends processes."""

    def __init__(self, home):
        self.home, self.processes = home, {}
        self.http = _free_port()
        self.folder = home / "engine" / NAME
        self.folder.mkdir(parents=True)
        self.log = (home / "pods.log").open("ab")
        self.status = {"address": f"tls://127.0.0.1:{_free_port()}", "tls": _credentials()}
        (self.folder / "engine.json").write_text(json.dumps(self.status))

    def start(self, what, name=""):
        env = {**os.environ, "CNAI_ENGINE": NAME, "CNAI_HTTP_PORT": str(self.http if what == "scheduler" else 0)}
        command = [sys.executable, "-m", "cnai.backends.pod", what]
        process = subprocess.Popen(command, env={**env, "DASK_WORKER_NAME": name}, stdout=self.log, stderr=self.log)
        self.processes[name or what] = process

    def end(self, name, number=signal.SIGTERM):
        process = self.processes.pop(name)
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
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
                clients.append(EngineClient(self.status["address"], security(self.status)))
            except EngineError:
                return False
            return True

        clients = []
        until(connect, "the scheduler answers")
        return clients[0]

    def names(self):
        return list(json.loads(self.ask("api/v1/retire_workers", n=0)).values())


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _credentials():
    from distributed import Security

    made = Security.temporary()
    return {"ca": made.tls_ca_file, "key": made.tls_scheduler_key, "cert": made.tls_scheduler_cert}


@pytest.fixture
def pods(home):
    made = Pods(home)
    yield made
    for name in list(made.processes):
        made.end(name)
    made.log.close()


def write(target, args=(), **given):
    """Put a run into the store as the notebook's backend does: with its engine, for whoever is there to begin it."""
    captured = capture(target, args, {})
    record = {"who": "ada", "cwd": os.getcwd(), "engine": NAME, "ranks_per_node": 1, "cpu": 1.0}
    spec = build_spec(captured, {"backend": "debug", **given})
    return Run(Store(store_root()).create(spec, record, captured.payload, captured.code_zip))


def read(run, pods, condition):
    """Wait for what the journal says of a run."""
    found = [run]

    def look():
        found[0] = Run(Store(store_root()).folder(run.id))
        return condition(found[0])

    until(look, f"{run}: {pods.home / 'pods.log'}: {(pods.home / 'pods.log').read_text()[-3000:]}")
    return found[0]


def ended(run):
    return run.state.final


def reasons(run):
    return [e.payload["reason"] for e in run.events if e.kind is Kind.STATE and e.payload["state"] == State.RESTARTING]


def begins(run):
    return [e.payload["from_step"] for e in run.events if e.kind is Kind.GENERATION]


def test_the_store_says_what_to_begin(pods):
    run = write(digits, (2, 0), ranks=2)
    for what, name in (("node", "one"), ("scheduler", ""), ("node", "two")):
        pods.start(what, name)
    run = read(run, pods, ended)
    assert run.result(0)[:2] == (20, 2)
    assert len({e.payload["text"] for e in run.events if e.kind is Kind.LOG}) == 2
