"""A script runs as `python script.py …` does, as it read when the run was started."""

from pathlib import Path

import pytest

from cnai.engine.capture import capture_script
from cnai.errors import UsageError


def test_runs_as_main_with_argv_and_its_folder(notebook, in_rank):
    folder = Path("scripts")
    folder.mkdir()
    (folder / "beside.py").write_text("value = 'beside'")
    (folder / "data.txt").write_text("data")
    (folder / "train.py").write_text(
        "import sys, beside\nfrom pathlib import Path\nfile = Path(__file__)\n"
        "print(__name__, sys.argv[1:], beside.value, file.name, file.with_name('data.txt').read_text())\nsys.exit(0)"
    )
    captured = capture_script("scripts/train.py", ("--lr", "0.1"))
    (folder / "train.py").write_text("raise SystemError('edited after the start')")
    (folder / "beside.py").write_text("value = 'edited'")
    outcome = in_rank(captured)
    assert (outcome.traceback, outcome.result) == ("", None)
    assert outcome.output == "__main__ ['--lr', '0.1'] beside train.py data\n"
    assert (captured.target.kind, captured.target.name, captured.target.source) == (
        "script",
        "train",
        "scripts/train.py",
    )


def test_pickle_finds_its_classes(notebook, in_rank):
    Path("s.py").write_text("import pickle\nclass Net: w = 5\nprint(pickle.loads(pickle.dumps(Net())).w)")
    assert in_rank(capture_script("s.py")).output == "5\n"


def test_its_lines_are_shown_as_they_ran(notebook, in_rank):
    Path("s.py").write_text("def f():\n    return 1 / 0\nf()")
    captured = capture_script("s.py")
    Path("s.py").write_text("# nothing like it")
    trace = in_rank(captured).traceback
    assert f'File "{Path("s.py").absolute()}", line 2, in f\n    return 1 / 0' in trace


def test_a_failing_exit_stays_one(notebook, in_rank):
    Path("s.py").write_text("import sys\nsys.exit('no data')")
    assert in_rank(capture_script("s.py")).traceback.endswith("SystemExit: no data\n")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("missing.py", None, "'missing.py' can't be read (No such file or directory)"),
        ("folder", "DIR", "(Is a directory)"),
        ("bad.py", b"x = 1\nx = = 2", "'bad.py', line 2: invalid syntax"),
        ("latin.py", b"x = '\xe4'", "'latin.py'"),
        ("nul.py", b"\0", "'nul.py'"),
    ],
)
def test_what_is_no_script_is_one_line(notebook, name, content, expected):
    if content == "DIR":
        Path(name).mkdir()
    elif content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        capture_script(name)
    assert expected in str(caught.value) and "\n" not in str(caught.value)
