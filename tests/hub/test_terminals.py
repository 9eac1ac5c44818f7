"""A terminal of a notebook server has the server's programs, although its login shell's profile resets PATH."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from cnai_hub.seeding import JUPYTER_CONFIG


@pytest.mark.usefixtures("starts_children")
@pytest.mark.parametrize("shell", ["bash", "sh", "zsh", "fish", ""])
def test_the_servers_programs_come_first(tmp_path, shell):
    if shell and shutil.which(shell) is None:
        pytest.skip(f"{shell} isn't installed here")
    config = json.loads((JUPYTER_CONFIG / "jupyter_server_config.json").read_text())
    command = config["ServerApp"]["terminado_settings"]["shell_command"]
    programs = tmp_path / "it's my programs"
    programs.mkdir()
    (programs / "cnai").write_text("#!/bin/sh\necho found\n")
    (programs / "cnai").chmod(0o755)
    for name in (".profile", ".zprofile"):
        (tmp_path / name).write_text("export PATH=/usr/bin:/bin OF_THE_PROFILE=kept\n")
    (tmp_path / ".config" / "fish").mkdir(parents=True)
    (tmp_path / ".config" / "fish" / "config.fish").write_text(
        "status is-login; and set -gx PATH /usr/bin /bin; and set -gx OF_THE_PROFILE kept\n"
    )
    env = {"HOME": str(tmp_path), "PATH": f"{programs}:/usr/bin:/bin"}
    done = subprocess.run(
        command,
        input="cnai; echo $OF_THE_PROFILE; env | grep -c PROGRAMS_FIRST\n",
        env={**env, "SHELL": str(shutil.which(shell))} if shell else env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["found", "kept", "0"], done.stderr
