"""`make` finds a Python that is new enough or says so in one line, and hands pip's configuration on to uv."""

import os
import re
import subprocess
from pathlib import Path

import pytest

import setup

ROOT = Path(__file__).resolve().parents[1]


def fake(folder: Path, name: str, version: str) -> None:
    """An executable that answers like a Python of some version."""
    major, minor = version.split(".")
    old = (int(major), int(minor)) < (3, 11)
    script = folder / name
    script.write_text(
        f'#!/bin/sh\ncase "$2" in *print*) echo {version};; *exit*) exit {int(old)};; *) echo "{name} runs $@";; esac\n'
    )
    script.chmod(0o755)


def find(path: Path, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["/bin/sh", ROOT / "tools" / "python.sh", "setup.py", "x"],
        env={"PATH": str(path), **env},
        capture_output=True,
        text=True,
    )


def test_an_old_python_is_one_line(tmp_path):
    fake(tmp_path, "python3", "3.9")
    done = find(tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"cnai needs Python 3.11 or newer: python3 is 3.9, .*install one .*\n", done.stderr)


def test_no_python_is_one_line(tmp_path):
    done = find(tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no python3 in PATH" in done.stderr


@pytest.mark.parametrize(("names", "chosen"), [(["python3"], "python3"), (["python3.12"], "python3.12")])
def test_a_newer_python_is_taken(tmp_path, names, chosen):
    fake(tmp_path, "python3", "3.10")
    for name in names:
        fake(tmp_path, name, "3.12")
    assert find(tmp_path).stdout == f"{chosen} runs setup.py x\n"


def test_a_named_python_comes_first(tmp_path):
    fake(tmp_path, "python3", "3.11")
    fake(tmp_path, "mine", "3.13")
    assert find(tmp_path, PYTHON=str(tmp_path / "mine")).stdout == "mine runs setup.py x\n"


def test_pips_configuration_reaches_uv(monkeypatch):
    answer = "global.index-url='https://index.invalid/simple'\nglobal.extra-index-url='https://a.invalid\\nhttps://b.invalid'\nglobal.timeout='5'\n:env:.cert='/ca.pem'\n"
    monkeypatch.setattr(setup, "call", lambda *command: answer)
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("UV_INDEX", "https://own.invalid")
    assert setup.uv_settings() == {"UV_DEFAULT_INDEX": "https://index.invalid/simple", "SSL_CERT_FILE": "/ca.pem"}


def test_a_failing_step_ends_with_one_line_that_names_the_command(capsys):
    with pytest.raises(SystemExit) as end:
        setup.step("proxy", lambda: setup.call("sh", "-c", "echo broken >&2; exit 3"))
    assert str(end.value).splitlines()[-1].startswith("proxy: `sh -c 'echo broken >&2; exit 3'` failed;")
    assert "broken" in str(end.value)


def test_help_lists_the_targets():
    alone = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, env=alone).stdout
    assert [line.split()[1] for line in shown.splitlines()] == [
        "help", "run", "demo", "check", "test", "lint", "format", "bench", "images", "cluster", "cluster-down",
        "test-cluster", "bench-cluster", "install", "lock", "clean",
    ]  # fmt: skip


def test_ci_runs_tests_and_demo():
    script = (ROOT / ".ci" / "run").read_text()
    assert "make test" in script and "make demo" in script and "set -euo pipefail" in script
    assert subprocess.run(["bash", "-n", ROOT / ".ci" / "run"]).returncode == 0
