"""Make images: cnai's wheel once, the packages of each image where they changed, cnai's code on top, then push."""

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
    """How images are made here: with which engine, on which base, and from which index PyTorch comes.

    `fresh` builds packages again that are there, on today's base: what a Dockerfile says is the same, Debian is not.
    """

    engine: Engine
    base: str = ""
    torch_index: str = ""
    fresh: bool = False
    known: dict[str, Image] = field(default_factory=images)

    def packages(self, names: Iterable[str]) -> dict[str, str]:
        """Build the packages of these images and of all that they inherit; return what each is called here."""
        made: dict[str, str] = {}
        for image in order(names, self.known):
            made[image.name] = self.packages_name(image.name)
            if self.fresh or not self.engine.has(made[image.name]):
                with _timed(f"{image.name}: packages"):
                    options = [f"--tag={made[image.name]}", *self._freshness(image)]
                    self.engine.build(image.dockerfile, self._arguments(image, made), *options)
        return made

    def finish(self, name: str, packages: str, tag: str) -> str:
        """Put cnai's code onto an image's packages; return what the image is called here."""
        made = f"{LOCAL}/{name}:{tag}"
        with _timed(f"{name}: code"):
            self._code(packages, *labels(name), f"--tag={made}")
        return made

    def sbom(self, name: str, packages: str, folder: Path) -> Path:
        """Write what an image holds to a folder."""
        with tempfile.TemporaryDirectory() as out:
            self._code(packages, "--target=sbom", f"--output=type=local,dest={out}")
            folder.mkdir(parents=True, exist_ok=True)
            return Path(shutil.copy(Path(out, "sbom.json"), folder / f"{name}.cdx.json"))

    def _code(self, packages: str, *options: str) -> None:
        self.engine.build(CODE / "Dockerfile", {"PACKAGES": packages}, *options, keep_layers=False)

    def push(self, made: str, registry: str, there: str) -> str:
        """Push an image, and return the reference that pods name: its repository and digest."""
        with _timed(f"{made.rpartition('/')[2].partition(':')[0]}: push"):
            digest = self.engine.push(made, made.replace(LOCAL, there, 1))
        return f"{made.replace(LOCAL, registry, 1).rpartition(':')[0]}@{digest}"

    def packages_name(self, name: str) -> str:
        """Return what the packages of an image are called here; other packages have another name."""
        return f"{LOCAL}/{name}:packages-{fingerprint(name, self.known, (self.base, self.torch_index))}"

    def _freshness(self, image: Image) -> list[str]:
        return ["--no-cache", *([] if image.parent else ["--pull"])] if self.fresh else []

    def _arguments(self, image: Image, made: dict[str, str]) -> dict[str, str]:
        """Return what the Dockerfile is told; what it doesn't declare, engines complain about."""
        given = {"PARENT": made.get(image.parent, ""), "BASE": self.base, "TORCH_INDEX": self.torch_index}
        declared = image.dockerfile.read_text()
        return {name: value for name, value in given.items() if value and f"ARG {name}" in declared}


def wheel() -> Path:
    """Build cnai's wheel, the same bytes for the same code, and return it."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(WHEELS)]
    env = {**os.environ, "PYTHONPATH": str(Path(sys.prefix) / "tools")}
    done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True)
    if done.returncode:
        raise ImageError(f"{done.stderr.strip()}\ncnai's wheel can't be built")
    (built,) = WHEELS.glob("*.whl")
    return built


def content(packages: str) -> str:
    """Return a hash of all that an image holds: that of its packages is in their name, cnai's code is in the wheel."""
    digest = hashlib.sha256(packages.encode())
    for path in sorted([*WHEELS.glob("*.whl"), *(path for path in CODE.iterdir() if path.is_file())]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def labels(name: str) -> list[str]:
    """Return the options that label an image, with the words of the OCI."""
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
    """Return an address that others can use and that names nobody's account, else nothing."""
    return address if address.startswith("https://") and "@" not in address else ""


def _git(*words: str) -> str:
    """Return what git says, nothing outside a checkout."""
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
