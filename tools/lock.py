"""Rewrites the locks: every package pinned with its hashes, without hosts. $UPGRADE upgrades to newer versions.

Images use the versions of `dev.lock`, with which the tests ran. An image's lock holds the packages that it adds to its
parent's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "locks"
COMMON = ["--universal", "--generate-hashes", "--no-annotate", "--no-header", "--python-version", "3.11", "-q"]
EXTRAS = {"run": ["torch", "hub", "notebooks", "node"], "dev": ["dev", "node"]}
TOOLS = "uv\nhatchling\neditables\n"
# The images whose packages each image inherits.
IMAGES = {"base": [], "app": ["base"], "torch": ["base", "app"], "notebook": ["base", "app", "torch"], "hub": ["base"]}


def main() -> None:
    """Resolve run, dev, tools and the images."""
    for name, extras in EXTRAS.items():
        compile_lock(LOCKS / f"{name}.lock", *(word for extra in extras for word in ("--extra", extra)))
    compile_lock(LOCKS / "tools.lock", given=TOOLS)
    # All images in one resolution, so that their versions agree.
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "images.lock")
        before = [path.read_text() for name in IMAGES if (path := lock_of(name)).exists()]
        whole.write_text("".join(before))
        everything = [word for name in IMAGES for word in ("--extra", f"image-{name}")]
        compile_lock(whole, *everything, "--constraints", str(LOCKS / "dev.lock"))
        for name in IMAGES:
            compile_image(name, whole)


def compile_image(name: str, whole: Path) -> None:
    """Write the packages that an image adds, in the versions of the common resolution."""
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder, "one.lock")
        compile_lock(lock, "--extra", f"image-{name}", "--constraints", str(whole))
        inherited = {line for parent in IMAGES[name] for line in entries(lock_of(parent).read_text())}
        lock_of(name).write_text("".join(line for line in entries(lock.read_text()) if line not in inherited))


def compile_lock(lock: Path, *options: str, given: str = "") -> None:
    """Resolve the project, or the given requirements, into a lock; keeps the versions that the lock already pins."""
    uv = [str(Path(sys.prefix) / "tools" / "bin" / "uv"), "pip", "compile", *COMMON, *options]
    upgrade = ["--upgrade"] if os.environ.get("UPGRADE") else []
    source = "-" if given else "pyproject.toml"
    subprocess.run([*uv, *upgrade, source, "-o", str(lock)], cwd=ROOT, check=True, input=given or None, text=True)


def lock_of(image: str) -> Path:
    """Return the path of an image's lock."""
    return LOCKS / f"image-{image}.lock"


def entries(text: str) -> list[str]:
    """Return the packages of a lock, each with its hashes."""
    return re.findall(r"^\S.*\n(?:[ \t]+.*\n)*", text, re.MULTILINE)


if __name__ == "__main__":
    main()
