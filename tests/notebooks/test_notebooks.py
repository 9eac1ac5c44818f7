"""Every notebook that comes with cnai runs from top to bottom, as nbval sees it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_saved_without_outputs(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert cells
    assert [cell.execution_count for cell in cells] == [None] * len(cells)
    assert [cell.outputs for cell in cells] == [[]] * len(cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, engine_home, tmp_path):
    folder = shutil.copytree(path.parent, tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*", "__pycache__"))
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-p", "no:cacheprovider", "--nbval-cell-timeout", "300"]
    ended = subprocess.run(
        [*command, "--rootdir", str(folder), path.name],
        cwd=folder,
        env={**os.environ, "CNAI_HOME": str(engine_home)},
        capture_output=True,
        text=True,
        check=False,
    )
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert f"{len(cells)} passed" in ended.stdout, ended.stdout[-4000:] + ended.stderr[-1000:]
    assert ended.returncode == 0, ended.stdout[-4000:]
