"""The first program in a notebook's pod, with a writable home and with a full one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnai_hub.kubernetes import notebook

SHOW = """#!/bin/sh
echo "args: $@"
env | grep -E '^(JUPYTER|IPYTHONDIR|MPLCONFIGDIR)' | sort
"""


@pytest.fixture
def pod(tmp_path, starts_children):
    """Run the first program of a pod, with a `jupyterhub-singleuser` that shows how it was started."""
    program = tmp_path / "bin" / "jupyterhub-singleuser"
    program.parent.mkdir()
    program.write_text(SHOW)
    program.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "home").mkdir()

    def run(home):
        environment = {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TMPDIR": str(tmp_path / "tmp"),
            "HOME": str(home),
            "JUPYTERHUB_ROOT_DIR": str(home),
        }
        command = [sys.executable, "-m", "cnai_hub.kubernetes.notebook", "--debug"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        lines = done.stdout.splitlines()
        return lines[0], dict(line.split("=", 1) for line in lines[1:])

    return run


def test_a_home_with_room_gets_the_notebooks_once(pod, tmp_path):
    home = tmp_path / "home"
    arguments, found = pod(home)
    assert arguments == "args: --FileContentsManager.delete_to_trash=False --debug"
    assert found["JUPYTERHUB_ROOT_DIR"] == str(home)
    assert found["JUPYTER_RUNTIME_DIR"] == str(tmp_path / "tmp" / "jupyter" / "runtime")
    assert "IPYTHONDIR" not in found
    first = home / "notebooks" / "01-first-run.ipynb"
    first.unlink()
    pod(home)
    assert not first.exists()
    assert not list(home.glob(".cnai-*"))


def test_a_home_that_takes_nothing_opens_beside_it_with_a_page_that_says_so(tmp_path):
    full = Path("/dev/full")  # writing there fails as on a full disk; it is no folder, so creating a file fails
    assert notebook.unwritable(full)
    root = tmp_path / "own"
    found = notebook.rescued(tmp_path / "home", root, "No space left on device")
    assert found["JUPYTERHUB_ROOT_DIR"] == str(root / "root")
    assert found["JUPYTERHUB_DEFAULT_URL"] == "/lab/tree/YOUR%20HOME%20IS%20FULL.md"
    assert (root / "root" / "home").readlink() == tmp_path / "home"
    page = (root / "root" / "YOUR HOME IS FULL.md").read_text()
    assert "No space left on device" in page
    assert all(Path(found[name]).is_dir() for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "XDG_CACHE_HOME"))
    notebook.rescued(tmp_path / "home", root, "No space left on device")  # the container was restarted


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tiny volume needs root")
def test_a_full_volume_is_found_before_jupyterlab_stumbles(pod, tmp_path):
    home = tmp_path / "volume"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(home)], check=True)
    try:
        assert notebook.unwritable(home) == ""
        with pytest.raises(OSError, match="No space left"):
            (home / "large").write_bytes(b"x" * (3 << 20))
        assert notebook.unwritable(home) == "No space left on device"
        _, found = pod(home)
        assert found["JUPYTERHUB_ROOT_DIR"] == str(tmp_path / "tmp" / "jupyter" / "root")
        (home / "large").unlink()
        _, found = pod(home)
        assert found["JUPYTERHUB_ROOT_DIR"] == str(home)
    finally:
        subprocess.run(["umount", str(home)], check=True)
