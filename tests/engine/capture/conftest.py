"""A notebook without a kernel, and a rank: a fresh process in another folder."""

import linecache
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cnai.engine import results
from cnai.engine.capture import Captured, unzip

ROOT = Path(__file__).parents[3]
PACKAGES = tuple(f"{ROOT / folder}/" for folder in (".venv", "extensions", "hub"))
RANK = """
import pickle, sys
from pathlib import Path
from cnai.engine.capture import load, user_traceback
payload, code, answer = sys.argv[1:]
try:
    result, trace = load(Path(payload).read_bytes(), Path(code) if code else None)(), ""
except BaseException as error:
    result, trace = None, user_traceback(error, debug=False)
from cnai.engine import results
Path(answer).write_bytes(results.pack((result, trace)))
"""


class Notebook:
    """Cells that are executed in `__main__`, with names and lines as IPython registers them."""

    def __init__(self, module: ModuleType) -> None:
        self.names = vars(module)
        self.count = 0

    def cell(self, source: str) -> None:
        self.count += 1
        name = f"<ipython-input-{self.count}-c0ffee>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec", dont_inherit=True), self.names)

    def __getitem__(self, name: str) -> Any:
        return self.names[name]


@pytest.fixture(autouse=True)
def _kernel(monkeypatch):
    """Hide the modules of the tests, which a kernel has not imported; those would travel."""
    for name, loaded in list(sys.modules.items()):
        file = getattr(loaded, "__file__", None) or ""
        if file.startswith(f"{ROOT}/") and not file.startswith(PACKAGES):
            monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def notebook(tmp_path, monkeypatch) -> Notebook:
    folder = tmp_path / "notebook"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(
        sys, "path", [str(folder), *(entry for entry in sys.path if "site-packages" in entry or "/lib/" in entry)]
    )
    module = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    before = set(sys.modules)
    yield Notebook(module)
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(tmp_path)):
            del sys.modules[name]


@dataclass
class Outcome:
    result: Any
    traceback: str
    output: str
    errors: str


@pytest.fixture
def in_rank(tmp_path, starts_children):
    """Run what was captured in a fresh process elsewhere."""

    def run(captured: Captured) -> Outcome:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        (elsewhere / "payload").write_bytes(captured.payload)
        code = unzip(captured.code_zip, elsewhere / captured.code_hash) if captured.code_zip else ""
        done = subprocess.run(
            [sys.executable, "-c", RANK, "payload", str(code), "answer"],
            cwd=elsewhere, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True,
            check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return Outcome(*results.unpack((elsewhere / "answer").read_bytes()), output=done.stdout, errors=done.stderr)

    return run
