"""A rank inherits nothing from the processes that forked it: it shows the traits that it has under torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cnai

WAIT = 300
PROGRAM = Path(__file__).with_name("traits.py")

ON_PURPOSE = {
    "open files": "the line to the node, the watchdog's pipe, and /dev/null in the place of the engine's other files",
    "threads": "the line's and the watchdog's",
    "signal handlers": "SIGUSR1 and fatal signals write the stacks of all threads into the log",
    "faulthandler": "the same",
    "frozen objects": "libraries that were loaded before the fork are shared between ranks",
    "sys.path": "the notebook's folder comes last",
}
"""Also listed in docs/how-it-works.md."""


def test_a_rank_has_the_traits_of_a_program_under_torchrun(engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"TZ": "Asia/Tokyo", "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", PROGRAM, "a", "b"],
        env={**os.environ, **given, "TRAITS": str(tmp_path / "torchrun")},
        timeout=WAIT,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    cnai.train(PROGRAM, ("a", "b"), ranks=2, env={**given, "TRAITS": str(tmp_path / "cnai")}).result(WAIT)
    for rank in "01":
        theirs, ours = (json.loads((tmp_path / f"{who}{rank}").read_text()) for who in ("torchrun", "cnai"))
        different = {name: (theirs[name], ours[name]) for name in theirs if theirs[name] != ours[name]}
        unexpected = {name: pair for name, pair in different.items() if name not in ON_PURPOSE}
        assert not unexpected, unexpected
        assert set(ours["open files"]) <= {"/dev/null", "socket", "pipe"}
        assert ours["open files"].count("socket") == ours["open files"].count("pipe") == 1
        assert set(theirs["sys.path"]) <= set(ours["sys.path"])
        more = {entry for entry in set(ours["sys.path"]) - set(theirs["sys.path"]) if entry}
        assert {Path(entry).name for entry in more} <= {"code"}, "the run's local modules"
