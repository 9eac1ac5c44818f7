"""What can be mistyped: one clear line each, in a notebook and in a shell, and nothing is started."""

import os
import re
import shlex
import subprocess
import sys

import pytest

ANYWHERE = [
    ("trian", "unknown verb 'trian'; did you mean 'train'"),
    ("train SCRIPT --rnks 2", "unknown flag '--rnks'; did you mean '--ranks'"),
    ("train SCRIPT --flavor smal", "unknown flavor 'smal'; did you mean 'small'"),
    ("train SCRIPT --flavor gpu4", "flavor 'gpu4' .* can't be started here: this machine has .*; this machine holds: "),
    ("train SCRIPT --image toch", "unknown image 'toch'; did you mean 'torch'"),
    ("train SCRIPT --backend lcal", "unknown backend 'lcal'; did you mean 'local'"),
    ("train SCRIPT --ranks -1", "ranks must be 1 or more, or a range such as 1:4; given: -1"),
    ("train SCRIPT --ranks 0", "ranks must be 1 or more.*given: 0"),
    ("train SCRIPT --ranks 3:2", "ranks must be 1 or more.*given: 3:2"),
    ("train SCRIPT --nodes 2", "nodes must be from 1 to ranks .1.; given: 2"),
    ("train SCRIPT --nodes two", "--nodes: takes a whole number; given: two"),
    ("train SCRIPT --retries -1", "retries must be 0 or more; given: -1"),
    ("train SCRIPT --timeout 0", "timeout_seconds must be above 0; given: 0"),
    ("train SCRIPT --timeout soon", "--timeout: takes a time such as .* given: soon"),
    ("train SCRIPT --checkpoint-every often", "checkpoint_every must be a number of steps .* given: often"),
    ("train SCRIPT --name 'a b'", "name must be letters, digits, .* given: 'a b'"),
    ("train SCRIPT --env A", "--env: takes KEY=VALUE; given: A"),
    ("train SCRIPT --backend debug --ranks 2", "the debug backend has 1 rank, .* given: --ranks 2"),
    ("train SCRIPT --return x", "--return belongs to a cell"),
    ("train missing.py", "script 'missing.py' can't be read"),
    ("train", "train needs a target"),
    ("attach fitt", "there are no runs yet"),
    ("stop", "there are no runs yet"),
    ("logs --rank -1", "--rank must be 0 or more; given: -1"),
    ("runs --limit 0", "--limit must be 1 or more; given: 0"),
    ("scale 0", "ranks must be 1 or more; given: 0"),
    ("scale", "missing: RANKS"),
    ("stop a b", "unexpected words: b"),
    ("cluster stat", "takes status, start, stop; given: stat; did you mean 'start'"),
    ("publish", "missing: NOTEBOOK"),
]

IN_A_NOTEBOOK = [
    ("%cnai train fitt", "unknown target 'fitt'; did you mean 'fit'. .allowed: fit"),
    ("%cnai train number", "target must be a function or the path of a script; given: 3 .int."),
    ("%cnai train numbers.fit", "unknown target 'numbers.fit' .allowed: fit, grab."),
    ("%cnai train fit.nothing", "target fit.nothing: function has no 'nothing'"),
    ("%cnai train fit epoch=3", r"fit\(epochs=1\) can't be called as fit\(epoch=3\)"),
    ("%cnai train fit 3", "parameters of fit have the form name=value, such as lr=0.1; given: 3"),
    ("%cnai train fit epochs=nr", "epochs=nr: the notebook has no 'nr'; .*a string needs quotes: epochs='nr'"),
    ("%cnai train fit epochs=numbr", "the notebook has no 'numbr'; did you mean number"),
    ("%cnai train fit epochs=1/0", "epochs=1/0 can't be evaluated: ZeroDivisionError: division by zero"),
    ("%cnai train fit epochs=1 epochs=2", "parameter epochs is given twice"),
    ("%cnai train fit 'epochs", "a closing ' is missing in: train fit 'epochs"),
    ("%cnai train grab", "grab uses 'lock' .*, which can't travel to a rank"),
    ("%%cnai train fit\nx = 1", "the cell itself is the target of %%cnai train; given: fit"),
    ("%%cnai train --dry-run\nx = 1", "--dry-run is for functions and scripts"),
    ("%%cnai train --return y\nx = 1", "the cell assigns no 'y' to return .it assigns x."),
    ("%%cnai train --return 2y\nx = 1", "--return: takes names of variables such as loss,model; given: 2y"),
    ("%%cnai train\n%time x = 1", "line 2 of the cell, '%time x = 1', is a magic or shell command"),
    ("%%cnai runs\nx = 1", "%%cnai supports only train; given: runs"),
]

NAMES = """
import threading
number = 3
lock = threading.Lock()
def fit(epochs=1):
    return epochs
def grab():
    return lock
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / "train.py").write_text("print('never')\n")
    return "train.py"


def typed(shell, capsys, code):
    """Type code into a shell; returns the lines that a person sees."""
    capsys.readouterr()
    result = shell.run_cell(code)
    assert result.error_in_exec is not None, "nothing was refused"
    out, err = capsys.readouterr()
    return (out + err).strip().splitlines()


@pytest.mark.parametrize(("line", "says"), ANYWHERE)
def test_magic(shell, script, capsys, home, line, says):
    (shown,) = typed(shell, capsys, f"%cnai {line.replace('SCRIPT', script)}")
    assert re.search(says, shown), shown
    assert not (home / "runs").exists() or not list((home / "runs").iterdir())


@pytest.mark.parametrize(("code", "says"), IN_A_NOTEBOOK)
def test_magic_in_a_notebook(shell, capsys, home, code, says):

    shell.run_cell(NAMES)
    (shown,) = typed(shell, capsys, code)
    assert re.search(says, shown), shown
    assert not (home / "runs").exists()


def test_a_syntax_error_shows_the_cells_own_line(shell, capsys):
    lines = typed(shell, capsys, "%%cnai train\nx = 1\nfor")
    assert lines[0].strip().startswith('File "Cell [')
    assert lines[0].endswith(", line 3")
    assert lines[-1] == "SyntaxError: invalid syntax"


@pytest.mark.usefixtures("starts_children")
@pytest.mark.parametrize(("line", "says"), [*ANYWHERE, ("train fit", "target must be a script")])
def test_command(script, home, tmp_path, line, says):

    done = subprocess.run(
        [sys.executable, "-m", "cnai.faces.cli", *shlex.split(line.replace("SCRIPT", script))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "CNAI_HOME": str(home)},
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (shown,) = done.stderr.strip().splitlines()
    assert re.search(says.replace("%cnai", "cnai"), shown), shown
    assert "%" not in shown
