"""The `cnai` command in a shell of its own, on the real local engine."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest

import cnai

SCRIPT = """
import sys, time
import cnai
ctx = cnai.context()
print("words", sys.argv[1:])
for step in range({steps}):
    ctx.report(loss=1 / (step + 1))
    time.sleep({pause})
{last}
"""


@pytest.fixture
def folder(tmp_path, engine):
    """A folder with scripts, beside a running engine."""
    (tmp_path / "quick.py").write_text(SCRIPT.format(steps=5, pause=0, last=""))
    (tmp_path / "slow.py").write_text(SCRIPT.format(steps=3000, pause=0.1, last=""))
    (tmp_path / "broken.py").write_text(SCRIPT.format(steps=5, pause=0, last="raise ValueError('too hot')"))
    return tmp_path


def command(folder, *words, **options):
    return subprocess.run(
        [sys.executable, "-m", "cnai.faces.cli", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=180,
        **options,
    )


def test_a_script_runs_to_its_end_with_its_words(folder):
    done = command(folder, "train", "quick.py", "a", "--ranks", "2", "b c", "--", "--ranks", "9")
    assert (done.returncode, done.stderr) == (0, "")
    for rank in (0, 1):
        assert f"[{rank}] words ['a', 'b c', '--ranks', '9']" in done.stdout.splitlines()
    last = done.stdout.splitlines()[-2:]
    assert re.fullmatch(r"quick-\S+ · SUCCEEDED · 2 ranks · .*", last[0])
    assert re.fullmatch(r" +loss +[▁-█]+ 0\.2", last[1])
    assert "\x1b" not in done.stdout


def test_a_failed_run_says_why_and_exits_1(folder):
    done = command(folder, "train", "broken.py")
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert 'broken.py", line 9, in <module>' in lines[1]
    assert lines[-1] == "rank 0: ValueError: too hot"
    assert not [line for line in lines if "/extensions/cnai/" in line]
    again = command(folder, "attach", "broken")
    assert (again.returncode, again.stderr) == (1, done.stderr)


def test_runs_logs_and_attach_show_a_finished_run(folder):
    command(folder, "train", "quick.py", "--name", "shown", "--ranks", "2")
    table = command(folder, "runs", "--limit", "1").stdout.splitlines()
    assert table[0].split() == ["run", "state", "ranks", "step", "latest", "started"]
    assert re.match(r"shown-\S+ +SUCCEEDED +2 +.*loss 0\.2", table[1])
    assert command(folder, "logs", "shown", "--rank", "1").stdout == "words []\n"
    assert command(folder, "logs", "shown", "--tail", "1").stdout == "words []\n"
    followed = command(folder, "logs", "shown", "--follow").stdout
    assert sorted(followed.splitlines()) == ["[0] words []", "[1] words []"], "ranks print in any order"
    attached = command(folder, "attach", "shown")
    assert attached.returncode == 0
    assert "SUCCEEDED" in attached.stdout


def test_dry_run_sends_nothing(folder):
    before = len(cnai.runs())
    done = command(folder, "train", "quick.py", "--dry-run", "--ranks", "1:2", "--timeout", "5m")
    assert done.returncode == 0
    assert '"timeout_seconds": 300.0' in done.stdout
    assert len(cnai.runs()) == before


def test_interrupt_detaches_and_the_run_goes_on(folder):
    following = subprocess.Popen(
        [sys.executable, "-m", "cnai.faces.cli", "train", "slow.py", "--name", "left"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: [run for run in cnai.runs() if run.spec.name == "left" and run.metrics])
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=60)
    run = cnai.attach("left")
    assert following.returncode == 130
    assert err == f"detached; the run continues: cnai attach {run.id} shows it, cnai stop {run.id} stops it\n"
    assert not run.state.final
    assert command(folder, "stop", "left").stdout == f"{run.id}: stopping\n"
    assert run.wait(60).state == "CANCELLED"
    assert command(folder, "attach", "left").returncode == 1


def test_a_terminal_gets_one_line_that_is_written_anew(folder):
    command(folder, "train", "quick.py")  # so that the engine is warm and the rest is short
    primary, secondary = pty.openpty()
    following = subprocess.Popen(
        [sys.executable, "-m", "cnai.faces.cli", "train", "quick.py"],
        cwd=folder,
        stdout=secondary,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "80"},
    )
    os.close(secondary)
    shown = read_all(primary).decode()
    assert following.wait(60) == 0
    assert "\r\x1b[2K" in shown
    assert "words []\r\n" in shown
    assert re.search(r"SUCCEEDED · 1 rank.*\r\n +loss +[▁-█]+ 0\.2\r\n$", shown)


def test_head_may_close_the_pipe(folder):
    done = subprocess.run(
        f"{sys.executable} -m cnai.faces.cli --help | head -1", shell=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("usage: cnai")
    assert done.stderr == ""


def test_help_is_not_an_error(folder):
    done = command(folder, "train", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "cnai train train.py data/" in done.stdout


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cnai sto", ["stop"]),
        ("cnai train --rank", ["--ranks"]),
        ("cnai train --flavor s", ["small"]),
        ("cnai train qui", ["quick.py"]),
        ("cnai cluster sta", ["start", "status"]),
    ],
)
def test_the_shell_completes(folder, line, expected):
    env = {**os.environ, "_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
    code = f"{sys.executable} -m cnai.faces.cli 8>&1 9>/dev/null"
    done = subprocess.run(code, shell=True, cwd=folder, capture_output=True, text=True, timeout=60, env=env)
    assert sorted(word.strip() for word in done.stdout.split("\n") if word.strip()) == expected


def wait_for(condition, timeout=120):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def read_all(descriptor):
    data = b""
    while select.select([descriptor], [], [], 120)[0]:
        try:
            chunk = os.read(descriptor, 4096)
        except OSError:  # the other end is closed
            break
        data += chunk
    os.close(descriptor)
    return data
