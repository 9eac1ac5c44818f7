"""The tests keep their own rules: which of them start processes, and that Ctrl-C reaches what they start."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
GUARDED = """
import signal, subprocess, sys
CODE = "import signal; raise SystemExit(signal.getsignal(signal.SIGINT) is not signal.default_int_handler)"

def test_that_says_so(starts_children):
    assert subprocess.run([sys.executable, "-c", CODE]).returncode == 0

def test_that_hides_it():
    try:
        subprocess.run([sys.executable, "-c", CODE])
    except Exception:
        pass

def test_that_takes_long(starts_processes):
    assert subprocess.run([sys.executable, "-c", CODE]).returncode == 0
"""


@pytest.fixture
def pytest_in_the_background(tmp_path, starts_children):
    """Run the guarded tests as a shell's background job, which ignores Ctrl-C; returns what pytest says."""
    (tmp_path / "test_guarded.py").write_text(GUARDED)

    def run(*words):
        command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "--tb=short", *words]
        done = subprocess.run(
            [*command, f"--rootdir={tmp_path}", "test_guarded.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
            capture_output=True,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )
        return done.stdout

    return run


def test_a_test_that_starts_a_process_has_to_say_so(pytest_in_the_background):
    said = pytest_in_the_background()
    assert "1 failed, 2 passed" in said, said
    assert "test_that_hides_it starts a process (python)" in said


def test_who_says_so_is_left_out_of_the_quick_check(pytest_in_the_background):
    assert "1 passed, 2 deselected" in pytest_in_the_background(
        "-m", "not process", "--deselect", "test_guarded.py::test_that_hides_it"
    )


@pytest.mark.parametrize("folder", [TESTS, TESTS / "cluster"], ids=lambda folder: folder.name)
def test_files_that_have_a_place_in_the_order_exist(folder):
    named = re.findall(r'"(test_\w+\.py)"', (folder / "conftest.py").read_text())
    assert named
    assert [name for name in named if not list(folder.rglob(name))] == []
