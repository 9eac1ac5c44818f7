"""Chain: the order of images. An image's Dockerfile names its parent; the parent's packages are its lowest layers."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "images"
CODE = FOLDER / "code"
"""The folder of the Dockerfile that adds cnai's own code to the packages of any image."""
LOCAL = "localhost/cnai"
_PARENT = re.compile(rf"^ARG PARENT={LOCAL}/([a-z-]+):packages$", re.MULTILINE)
_COPIED = re.compile(r"^COPY (.+) \S+$", re.MULTILINE)


class ImageError(Exception):
    """An image can't be built; the message says in one line why and what to do."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image, named after its folder; `parent` is "" for the base, which all other images inherit from."""

    name: str
    parent: str
    files: tuple[str, ...]
    """The files that the image's Dockerfile copies from the checkout."""

    @property
    def locks(self) -> tuple[str, ...]:
        """Return the lock files of the packages that the image adds."""
        return tuple(file for file in self.files if file.startswith("locks/"))

    @property
    def dockerfile(self) -> Path:
        """Return the file that adds this image's packages to its parent's."""
        return FOLDER / self.name / "Dockerfile"


def images() -> dict[str, Image]:
    """Return all images, parents before their children."""
    found = {path.parent.name: _read(path) for path in FOLDER.glob("*/Dockerfile") if path.parent != CODE}
    return {name: found[name] for name in sorted(found, key=lambda name: (len(lineage(name, found)), name))}


def lineage(name: str, known: dict[str, Image]) -> list[Image]:
    """Return an image and its ancestors, the base first."""
    if name not in known:
        raise ImageError(f"no image {name!r}; the images are: {', '.join(sorted(known))}")
    image = known[name]
    return [*(lineage(image.parent, known) if image.parent else []), image]


def order(names: Iterable[str], known: dict[str, Image]) -> list[Image]:
    """Return the named images and all their ancestors, parents first."""
    needed = {image.name for name in names for image in lineage(name, known)}
    return [image for image in known.values() if image.name in needed]


def fingerprint(name: str, known: dict[str, Image], settings: Iterable[str] = ()) -> str:
    """Return a hash of everything that determines an image's packages."""
    digest = hashlib.sha256("\0".join(settings).encode())
    for ancestor in lineage(name, known):
        for path in (ancestor.dockerfile, *(ROOT / file for file in ancestor.files)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _read(dockerfile: Path) -> Image:
    text = dockerfile.read_text()
    parent = _PARENT.search(text)
    files = " ".join(_COPIED.findall(text))
    return Image(dockerfile.parent.name, parent[1] if parent else "", tuple(files.split()))
