"""The programs that build and push images. Docker and Buildah take the same arguments for a build."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from images.chain import ROOT, ImageError

if TYPE_CHECKING:
    from collections.abc import Mapping

ENGINES = ("docker", "buildah")


@dataclass(frozen=True, slots=True)
class Engine:
    """Docker or Buildah, with options for every build and push and additional environment variables."""

    program: str
    build_options: tuple[str, ...] = ()
    push_options: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    def build(self, dockerfile: Path, arguments: Mapping[str, str], *options: str, keep_layers: bool = True) -> None:
        """Build a Dockerfile with the checkout as its context; kept layers are not built again."""
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        words = ["build", f"--file={dockerfile.relative_to(ROOT)}", *given, *self.build_options, *options, "."]
        # Docker always keeps layers. Buildah keeps them only on request, and creates an image per line for that.
        self._call(*words, BUILDAH_LAYERS=str(keep_layers).lower())

    def has(self, image: str) -> bool:
        """Tell whether an image is on this machine."""
        try:
            self._call("inspect", "--type=image", image)
        except ImageError:
            return False
        return True

    def remove(self, image: str) -> None:
        """Remove a name from an image, and delete the layers that no other image uses."""
        self._call("rmi", image)

    def tags(self, repository: str) -> list[str]:
        """Return the tags of a repository on this machine, newest first."""
        return self._call("images", "--format={{.Tag}}", f"--filter=reference={repository}:*").split()

    def push(self, image: str, there: str) -> str:
        """Push an image to an address and return its digest."""
        return (self._push_with_buildah if self.program == "buildah" else self._push_with_docker)(image, there)

    def _push_with_buildah(self, image: str, there: str) -> str:
        with tempfile.NamedTemporaryFile("r") as file:
            self._call("push", "--quiet", f"--digestfile={file.name}", *self.push_options, image, f"docker://{there}")
            return Path(file.name).read_text().strip()

    def _push_with_docker(self, image: str, there: str) -> str:
        if image != there:
            self._call("tag", image, there)
        self._call("push", "--quiet", *self.push_options, there)
        found: list[str] = json.loads(self._call("inspect", "--type=image", "--format={{json .RepoDigests}}", there))
        repository = there.rpartition(":")[0]
        return next(digest for name, _, digest in (entry.partition("@") for entry in found) if name == repository)

    def _call(self, *words: str, **more: str) -> str:
        command = [self.program, *words]
        env = {**os.environ, "DOCKER_BUILDKIT": "1", **self.settings, **more}
        done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            tail = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-15:])
            raise ImageError(f"{tail}\n`{shlex.join(command)}` failed")
        return done.stdout


def choose(name: str | None) -> str:
    """Return the requested engine, or the first installed one that works."""
    for program in [name] if name else ENGINES:
        if shutil.which(program) and _answers(program):
            return program
    raise ImageError(
        f"{name or ' or '.join(ENGINES)} doesn't run here; install docker or buildah, or choose one with --engine"
    )


def _answers(program: str) -> bool:
    """Tell whether an engine works; Docker's command may be installed without a running service."""
    return subprocess.run([program, "info"], capture_output=True, stdin=subprocess.DEVNULL).returncode == 0
