from __future__ import annotations

import atexit
import os
import threading

import pytest

from faces.kernels import Kernel

FIT = """\
import math, time
def fit(steps=20, pause=0.0, fail_at=None, noise=0.0):
    import cnai
    ctx = cnai.context()
    for step in range(steps):
        if step == fail_at:
            raise ValueError("loss exploded")
        ctx.report(loss=math.exp(-step / 10))
        if step % 10 == 0:
            print("at", step, flush=True)
        time.sleep(pause)
    return steps
"""


def start(engine_home, tmp_path_factory):
    env = {**os.environ, "CNAI_HOME": str(engine_home), "IPYTHONDIR": str(tmp_path_factory.mktemp("ipython"))}
    return Kernel(tmp_path_factory.mktemp("work"), env)


@pytest.fixture(scope="module")
def kernel(engine_home, tmp_path_factory):
    """A kernel with the extension and a function to train."""
    kernel = start(engine_home, tmp_path_factory)
    assert kernel.run("%load_ext cnai").status == "ok"
    assert kernel.run(FIT).status == "ok"
    yield kernel
    kernel.close()


@pytest.fixture
def another_kernel(engine_home, tmp_path_factory):
    """A bare kernel of the same person."""
    kernel = start(engine_home, tmp_path_factory)
    yield kernel
    kernel.close()


@pytest.fixture(scope="session")
def terminal(engine_home):
    """IPython in this process, as in a terminal, after its warm-up."""
    from IPython.testing.globalipapp import get_ipython, start_ipython

    shell = start_ipython() or get_ipython()
    shell.run_line_magic("load_ext", "cnai")
    shell.run_cell("pass")
    for name in ("cnai-load", "cnai-warm-up"):  # the second is started by the first
        for thread in [thread for thread in threading.enumerate() if thread.name == name]:
            thread.join(timeout=120)
    yield shell
    # The folder of its history goes before the interpreter ends.
    atexit.unregister(shell.atexit_operations)
    shell.atexit_operations()


@pytest.fixture
def shell(terminal, home, tmp_path, monkeypatch):
    """The terminal's IPython in an empty folder, with names of its own."""
    monkeypatch.chdir(tmp_path)
    before = dict(terminal.user_ns)
    yield terminal
    terminal.user_ns.clear()
    terminal.user_ns.update(before)
