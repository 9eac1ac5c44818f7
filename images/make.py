"""Makes images: builds cnai's wheel once and each image's packages if they changed, adds cnai's code, then pushes."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from images.chain import CODE, LOCAL, ROOT, Image, ImageError, fingerprint, images, order

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from images.engine import Engine

_log = logging.getLogger(__name__)
WHEELS = ROOT / "build" / "wheel"


@dataclass(frozen=True, slots=True)
class Maker:
    """Builds images with an engine, on a base, with PyTorch from an index.

    `fresh` rebuilds existing packages on the current base: the Dockerfiles may be unchanged, but Debian isn't.
    """

    engine: Engine
    base: str = ""
    torch_index: str = ""
    fresh: bool = False
    known: dict[str, Image] = field(default_factory=images)

    def packages(self, names: Iterable[str]) -> dict[str, str]:
        """Build the packages of these images and of their ancestors; return their local names by image."""
        made: dict[str, str] = {}
        for image in order(names, self.known):
            made[image.name] = self.packages_name(image.name)
            if self.fresh or not self.engine.has(made[image.name]):
                with _timed(f"{image.name}: packages"):
                    options = [f"--tag={made[image.name]}", *self._freshness(image)]
                    self.engine.build(image.dockerfile, self._arguments(image, made), *options)
        return made

    def finish(self, name: str, packages: str, tag: str) -> str:
        """Add cnai's code to an image's packages; return the image's local name."""
        made = f"{LOCAL}/{name}:{tag}"
        with _timed(f"{name}: code"):
            self._code(packages, *labels(name), f"--tag={made}")
        return made

    def sbom(self, name: str, packages: str, folder: Path) -> Path:
        """Write an image's list of contents to a folder."""
        with tempfile.TemporaryDirectory() as out:
            self._code(packages, "--target=sbom", f"--output=type=local,dest={out}")
            folder.mkdir(parents=True, exist_ok=True)
            return Path(shutil.copy(Path(out, "sbom.json"), folder / f"{name}.cdx.json"))

    def _code(self, packages: str, *options: str) -> None:
        self.engine.build(CODE / "Dockerfile", {"PACKAGES": packages}, *options, keep_layers=False)

    def push(self, made: str, registry: str, there: str) -> str:
        """Push an image, and return its reference for pods: repository and digest."""
        with _timed(f"{made.rpartition('/')[2].partition(':')[0]}: push"):
            digest = self.engine.push(made, made.replace(LOCAL, there, 1))
        return f"{made.replace(LOCAL, registry, 1).rpartition(':')[0]}@{digest}"

    def packages_name(self, name: str) -> str:
        """Return the local name of an image's packages, which contains their fingerprint."""
        return f"{LOCAL}/{name}:packages-{fingerprint(name, self.known, (self.base, self.torch_index))}"

    def _freshness(self, image: Image) -> list[str]:
        return ["--no-cache", *([] if image.parent else ["--pull"])] if self.fresh else []

    def _arguments(self, image: Image, made: dict[str, str]) -> dict[str, str]:
        """Return the build arguments that the Dockerfile declares; engines complain about any others."""
        given = {"PARENT": made.get(image.parent, ""), "BASE": self.base, "TORCH_INDEX": self.torch_index}
        declared = image.dockerfile.read_text()
        return {name: value for name, value in given.items() if value and f"ARG {name}" in declared}


def wheel() -> Path:
    """Build cnai's wheel reproducibly and return its path."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(WHEELS)]
    env = {**os.environ, "PYTHONPATH": str(Path(sys.prefix) / "tools")}
    done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True)
    if done.returncode:
        raise ImageError(f"{done.stderr.strip()}\ncnai's wheel can't be built")
    (built,) = WHEELS.glob("*.whl")
    return built


def content(packages: str) -> str:
    """Return a hash of an image's contents: of its packages' name, which has their hash, and of the wheel and code/."""
    digest = hashlib.sha256(packages.encode())
    for path in sorted([*WHEELS.glob("*.whl"), *(path for path in CODE.iterdir() if path.is_file())]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def labels(name: str) -> list[str]:
    """Return the options that label an image with OCI annotation keys."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = {
        "title": f"cnai {name}",
        "description": project["description"],
        "version": project["version"],
        "licenses": project["license"],
        "revision": _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"),
        "source": _public(_git("remote", "get-url", "origin")),
    }
    return [f"--label=org.opencontainers.image.{key}={value}" for key, value in known.items() if value]


def _public(address: str) -> str:
    """Return the address if it is public and contains no account name, otherwise ""."""
    return address if address.startswith("https://") and "@" not in address else ""


def _git(*words: str) -> str:
    """Return git's output, "" outside a checkout."""
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, text=True, capture_output=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@contextmanager
def _timed(what: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    _log.info("%s: %.1f s", what, time.monotonic() - start)
