"""A rank ends as a Python program ends: what it wrote, its handlers, its exit code, and nothing of it stays.

Each program runs twice, with plain Python, which is how torchrun starts a rank, and as a rank.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import cnai
from cnai.events import State
from run.waiting import until

WAIT = 120

PROGRAMS = {
    "files and handlers": """
        import atexit, gzip, os, zipfile
        plain = open("plain.txt", "w"); plain.write("ten losses")
        binary = open("binary", "ab"); binary.write(b"ten losses")
        packed = gzip.open("packed", "wt"); packed.write("ten losses")
        zipped = zipfile.ZipFile("zipped", "w"); zipped.writestr(zipfile.ZipInfo("a"), "ten losses")
        atexit.register(lambda: plain.write(", said the handler"))
        atexit.register(lambda: open("main", "w").write(str(vars(__import__("__main__")) is globals())))
        """,
    "exception": """
        import atexit, sys
        sys.excepthook = lambda *_: open("hook", "w").write("seen")
        atexit.register(lambda: open("handler", "w").write("ran"))
        def fit():
            losses = open("losses", "w"); losses.write("ten losses")
            raise ValueError("in the 11th step")
        fit()
        """,
    "sys.exit": """
        import sys
        losses = open("losses", "w"); losses.write("ten losses")
        sys.exit(3)
        """,
    "sys.exit with a text": "import sys; sys.exit('no data')",
    "sys.exit of 256": "import sys; sys.exit(256)",
    "a thread": """
        import threading, time
        def write():
            time.sleep(0.3)
            import __main__ as main
            open("thread", "w").write(main.word)
        word = "late"
        threading.Thread(target=write).start()
        """,
    "objects": """
        import tempfile, weakref
        class Writer:
            def __init__(self): self.file = open("deleted", "w")
            def __del__(self): self.file.write("yes")
        writer, folder = Writer(), tempfile.TemporaryDirectory(dir=".")
        weakref.finalize(writer, lambda: open("finalized", "w").write("yes"))
        """,
    "a module's file": """
        import sys
        open("helper_of_ends.py", "w").write("import gzip; file = gzip.open('helped', 'wt'); file.write('x')")
        sys.path.insert(0, "")
        import helper_of_ends
        """,
    "pools": """
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
        from multiprocessing import Pool
        def square(x): return x * x
        if __name__ == "__main__":
            processes, threads, old = ProcessPoolExecutor(2), ThreadPoolExecutor(2), Pool(2)
            squares = list(processes.map(square, range(4))), list(threads.map(square, [4])), old.map(square, [5])
            open("squares", "w").write(str(squares))
        """,
    "joblib": """
        import joblib, math
        open("roots", "w").write(str(joblib.Parallel(n_jobs=2)(joblib.delayed(math.sqrt)(x) for x in (4, 9))))
        """,
    "a forked child": """
        import os, sys
        file = open(f"file-{os.fork() == 0}", "w"); file.write("mine")
        if file.name == "file-True":
            sys.exit(5)
        open("status", "w").write(str(os.waitstatus_to_exitcode(os.wait()[1])))
        """,
    "a forked child that fails": """
        import os
        if os.fork() == 0:
            1 / 0
        open("status", "w").write(str(os.waitstatus_to_exitcode(os.wait()[1])))
        """,
    "buffers of C": "import ctypes; ctypes.CDLL(None).printf(b'from C')",
    "os._exit(0)": "import os; os._exit(0)",
    "os._exit(9)": "import os; os._exit(9)",
    "a signal": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "a handler that leaves": "import atexit, os; atexit.register(os._exit, 4)",
    "a handler that fails": "import atexit; atexit.register(lambda: 1 / 0)",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_ends_as_with_python(engine, tmp_path, monkeypatch, name):
    plain, ours = tmp_path / "plain", tmp_path / "ours"
    for folder in (plain, ours):
        folder.mkdir()
        (folder / "program.py").write_text(textwrap.dedent(PROGRAMS[name]))
    done = subprocess.run([sys.executable, "program.py"], cwd=plain, timeout=WAIT, check=False, capture_output=True)
    monkeypatch.chdir(ours)
    run = cnai.train("program.py", infra_retries=0)
    ended = run.wait(WAIT)
    assert files(ours) == files(plain)
    assert done.stdout.decode() in run.logs()
    assert (ended.state is State.SUCCEEDED) == (done.returncode == 0), ended
    if done.returncode not in {0, 1}:
        code = "SIGKILL" if done.returncode < 0 else str(done.returncode)
        assert code in ended.reason, ended


def files(folder):
    """Return the content of each file; gzip has the time in its header."""

    def content(path):
        found = path.read_bytes()
        return gzip.decompress(found) if found.startswith(b"\x1f\x8b") else found

    return {path.name: content(path) for path in folder.iterdir() if path.is_file()}


def test_functions_end_as_programs_too(engine, tmp_path):
    def fit(folder):
        import atexit
        import builtins

        builtins.kept = open(f"{folder}/kept", "w")  # noqa: SIM115 - never closed, as in many a program
        builtins.kept.write("ten losses")
        atexit.register((Path(folder) / "handler").write_text, "ran")

    cnai.train(fit, (str(tmp_path),)).result(WAIT)
    assert files(tmp_path) == {"kept": b"ten losses", "handler": b"ran"}


def test_a_hanging_handler_does_not_keep_a_run_from_its_end(engine):
    def fit():
        import atexit
        import time

        atexit.register(time.sleep, 1000)
        print("on", flush=True)

    run = cnai.train(fit)
    until(lambda: "on" in run.logs())
    run.stop()
    assert run.wait(WAIT).state is State.CANCELLED
