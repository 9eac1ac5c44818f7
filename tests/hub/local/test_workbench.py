"""`cnai-hub run` and `link`, as a person uses them in a terminal."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

import cnai
from cnai import environment
from cnai.engine.control.verdicts import STOPPED
from cnai.engine.store import RunFolder
from cnai.events import State
from cnai.run import find
from cnai_hub.local import processes
from hub.realhub import CHECKOUT, free_port, until
from run.training import digits

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("starts_processes")

GREEN = (
    "from IPython.display import Image, display\n"
    "import base64\n"
    "greeting = 'hello from the first run'\n"
    "display(Image(base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkaPhfDwADBAGA4V5hNQAAAABJRU5ErkJggg==')))"
)


def notebook(path: Path, *sources: str) -> None:
    cells = [
        {
            "cell_type": "code",
            "id": f"c{number}",
            "metadata": {},
            "source": text,
            "outputs": [],
            "execution_count": None,
        }
        for number, text in enumerate(sources)
    ]
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": cells, "metadata": spec, "nbformat": 4, "nbformat_minor": 5}))


class Terminal:
    """A terminal in which a user starts the workbench of `home`."""

    def __init__(self, home: Path, port: int | None = None) -> None:
        self.home, self.port = home, port or free_port()
        self.environment = {**os.environ, "CNAI_HOME": str(home), "CNAI_PORT": str(self.port), "CNAI_PERSON": "ada"}
        self.output = home.with_name(f"{home.name}-output")
        self._process: subprocess.Popen[bytes] | None = None

    def type(self, *words: str, **more) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cnai_hub.local.workbench", *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300, **more)

    def run(self) -> str:
        """Start the workbench, and return its output up to the moment it is ready."""
        command = [sys.executable, "-m", "cnai_hub.local.workbench", "run"]
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                command, env=self.environment, stdout=output, stderr=subprocess.STDOUT, cwd=CHECKOUT
            )
        until(lambda: "Ctrl-C stops everything" in self.said() or not self.lives(), "the workbench is ready", 400)
        assert self.lives(), self.said()
        return self.said()

    def said(self) -> str:
        return self.output.read_text()

    def lives(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send(self, number: int) -> int:
        """Send the workbench a signal and return its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(300)


@pytest.fixture
def terminal(tmp_path):
    terminal = Terminal(tmp_path / "cnai")
    yield terminal
    if terminal.lives():
        terminal.send(signal.SIGTERM)
    left = processes.marked(terminal.home)
    processes.end(left)
    assert not left


def test_the_first_run_is_done_once_and_everything_ends_with_ctrl_c(terminal):
    notebook(terminal.home / "notebooks" / "01-first-run.ipynb", GREEN, "print(greeting)")
    said = terminal.run()
    steps = re.findall(r"✓ (.*?) +[\d.]+ s", said)
    assert steps[:1] == [f"hub at http://127.0.0.1:{terminal.port}"]
    assert steps[1].startswith("notebook server: PyTorch, ")
    assert steps[2:] == [
        "01-first-run.ipynb runs in it, training over 2 ranks",
        "published as an app, shared with guest",
        "the app answers guest",
    ]
    cells = json.loads((terminal.home / "notebooks" / "01-first-run.ipynb").read_text())["cells"]
    assert "image/png" in cells[0]["outputs"][0]["data"]
    assert "".join(cells[1]["outputs"][0]["text"]) == "hello from the first run\n"

    person, app = re.findall(rf"http://127\.0\.0\.1:{terminal.port}/\S+", said)[-2:]
    assert_opens(person, "/user/ada/lab/tree/01-first-run.ipynb")
    assert httpx.get(person).status_code == 403, "a link works once"
    assert app.endswith("/services/apps/open/ada/01-first-run")

    second = terminal.type("run")
    assert second.returncode == 1
    assert second.stderr.startswith(f"cnai: the workbench of {terminal.home} is already running at http://127.0.0.1:")
    assert len(second.stderr.splitlines()) == 1
    assert_opens(terminal.type("link").stdout.strip(), "/user/ada/lab/tree/01-first-run.ipynb")

    assert terminal.send(signal.SIGINT) == 0
    assert processes.marked(terminal.home) == []
    assert (
        terminal.type("link").stderr.strip()
        == f"cnai: no workbench is running for {terminal.home}; start it with `make run`"
    )

    said = terminal.run()
    assert "01-first-run.ipynb runs in it" not in said
    link = re.findall(rf"http://127\.0\.0\.1:{terminal.port}/hub/\S+", said)[0]
    assert_opens(link, "/user/ada/lab/tree/01-first-run.ipynb")

    # If launcher and hub are killed, the notebook server keeps running, and the next start takes it over.
    hub = int((terminal.home / "hub" / "hub.pid").read_text())
    os.kill(hub, signal.SIGSTOP)
    assert terminal.send(signal.SIGKILL) == -signal.SIGKILL
    os.kill(hub, signal.SIGKILL)
    (server,) = servers(terminal.home)
    terminal.run()
    assert servers(terminal.home) == [server]

    # If the launcher is killed, the hub stops, too.
    assert terminal.send(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: not processes.marked(terminal.home), "everything has ended", 120)


def servers(home: Path) -> list[int]:
    """Return the notebook servers of a home."""
    return [process.pid for process in processes.marked(home) if "jupyterhub.singleuser" in process.cmdline()]


def test_a_first_run_that_fails_says_why_and_the_workbench_stays(terminal):
    notebook(terminal.home / "notebooks" / "01-first-run.ipynb", "1 / 0")
    said = terminal.run()
    assert "✗ 01-first-run.ipynb runs in it" in said
    assert "cell '1 / 0' raised ZeroDivisionError: division by zero" in said
    assert "the next start tries this again" in said
    assert "/services/apps/open" not in said
    (cell,) = json.loads((terminal.home / "notebooks" / "01-first-run.ipynb").read_text())["cells"]
    assert cell["outputs"][0]["ename"] == "ZeroDivisionError"
    assert terminal.send(signal.SIGTERM) == 0


def test_ctrl_c_leaves_a_training_to_the_next_engine(terminal, monkeypatch):
    notebook(terminal.home / "notebooks" / "01-first-run.ipynb", "1 / 0")
    terminal.run()
    monkeypatch.setenv("CNAI_HOME", str(terminal.home))
    monkeypatch.delenv("CNAI_STORE", raising=False)
    monkeypatch.setenv(environment.WORKBENCH.name, str(terminal.home))  # as in a notebook of the workbench
    run = cnai.train(digits, (100,), ranks=2)
    until(lambda: (run.step or 0) >= 3, "it trains", 120)
    assert terminal.send(signal.SIGINT) == 0
    assert processes.marked(terminal.home) == []
    left = find(run.id)
    assert (left.state, left.reason) == (State.RESTARTING, STOPPED)
    checkpoint = RunFolder(terminal.home / "runs" / run.id).latest()
    assert checkpoint is not None
    assert checkpoint.name == f"step-{left.step}"


def test_a_port_in_use_is_one_line(terminal):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", terminal.port))
        taken.listen()
        ended = terminal.type("run")
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr == (
        f"cnai: port {terminal.port} is in use by another program; choose another one: "
        f"CNAI_PORT={terminal.port + 1} make run\n"
    )


def test_a_full_disk_is_one_line(terminal):
    def nothing_more() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    ended = terminal.type("run", preexec_fn=nothing_more)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.endswith(f"below {terminal.home}; free space there, or choose another folder with CNAI_HOME")


@pytest.mark.parametrize("words", [(), ("fly",)])
def test_an_unknown_command_says_what_is_allowed(terminal, words):
    ended = terminal.type(*words)
    assert ended.returncode == 2
    assert "run" in ended.stderr.splitlines()[-1] or "command" in ended.stderr.splitlines()[-1]


def assert_opens(link: str, path: str) -> None:
    """Assert that a browser that follows a link arrives logged in."""
    navigation = {"Sec-Fetch-Mode": "navigate", "Accept": "text/html"}
    page = httpx.get(link, headers=navigation, follow_redirects=True, timeout=120)
    assert (page.status_code, page.url.path) == (200, path)
