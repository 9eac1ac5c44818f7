"""A script of a project sees itself, its modules and its files as it does under torchrun; its code is frozen."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import cnai

if TYPE_CHECKING:
    from pathlib import Path

WAIT = 120
SCRIPT = """
import json, os, sys, pathlib
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import importlib.resources, inspect, multiprocessing, pkgutil, subprocess, traceback
import torch
import beside, space.part
from src import models
from src.models import net

class Rows(torch.utils.data.Dataset):
    def __len__(self): return 2
    def __getitem__(self, index):
        import beside, later
        return f"{beside.__file__} {later.__file__}"

def traced(function):
    try: function()
    except ZeroDivisionError as error: return traceback.format_exc().splitlines()[-4:]

def main():
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        spawned = pool.apply(net.where)
    loader = torch.utils.data.DataLoader(Rows(), batch_size=None, num_workers=1)
    beside.OUT.mkdir()
    (beside.OUT / "model.txt").write_text("weights")
    import later
    traits = {
        "main": [__name__, __file__, __spec__ is None, sys.argv, os.getcwd(), main.__code__.co_filename],
        "path": [entry for entry in sys.path if entry.startswith(os.getcwd())],
        "modules": {m.__name__: [str(m.__file__), sorted(set(getattr(m, "__path__", []))), m.__package__]
                    for m in (beside, models, net, space, space.part, later)},
        "origin": [net.__spec__.origin, net.__cached__, net.__spec__.cached],
        "code": [net.where.__code__.co_filename, inspect.getsourcefile(net.where), inspect.getsource(net.where)],
        "trace": traced(net.fails),
        "data": [(beside.DATA / "train.csv").read_text(),
                 importlib.resources.files("src.models").joinpath("labels.txt").read_text(),
                 pkgutil.get_data("src.models", "labels.txt").decode(), str(importlib.resources.files("src"))],
        "found": sorted(name for _, name, _ in pkgutil.walk_packages(models.__path__, "src.models.")),
        "processes": [subprocess.run([sys.executable, "scripts/other.py"], capture_output=True, text=True).stdout,
                      spawned, list(loader)],
    }
    print(json.dumps(traits), flush=True)

if __name__ == "__main__":
    main()
"""
FILES = {
    "scripts/train.py": SCRIPT,
    "scripts/beside.py": (
        "from pathlib import Path\nHERE = Path(__file__).parents[1]\nDATA, OUT = HERE / 'data', HERE / 'outputs'\n"
    ),
    "scripts/later.py": "",
    "scripts/other.py": "import beside, sys\nprint(beside.__file__, sys.path[0])\n",
    "data/train.csv": "1,2",
    "space/part.py": "",
    "src/__init__.py": "",
    "src/models/__init__.py": "from .net import where\nfrom ..other import value\n",
    "src/models/net.py": "def where():\n    return __file__, __name__\n\n\ndef fails():\n    return 1 / 0\n",
    "src/models/deep/__init__.py": "",
    "src/models/labels.txt": "cat",
    "src/other.py": "value = 1\n",
}


def write(folder: Path) -> None:
    for name, text in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def outputs(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "project"
    write(folder)
    monkeypatch.chdir(folder)
    return folder


def test_every_trait_is_that_under_torchrun(engine, project):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1", "scripts/train.py", "--lr", "1"]
    done = subprocess.run(torchrun, capture_output=True, text=True, check=False, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    expected, left = json.loads(done.stdout), outputs(project)
    (project / "outputs/model.txt").unlink()
    (project / "outputs").rmdir()
    run = cnai.train("scripts/train.py", ("--lr", "1"))
    run.result(WAIT)
    for trait, value in json.loads(run.logs()).items():
        assert (trait, value) == (trait, expected[trait])
    assert outputs(project) == left
