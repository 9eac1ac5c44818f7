"""Write the locks anew: every package pinned with its hashes, no host named. $UPGRADE takes newer versions.

An image's lock holds what it inherits too. Images take the versions of `dev.lock`, which the tests ran with.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMON = ["--universal", "--generate-hashes", "--no-annotate", "--no-header", "--python-version", "3.11", "-q"]
EXTRAS = {"run": ["torch", "hub", "notebooks", "node"], "dev": ["dev", "node"]}
IMAGES = ["base", "app", "notebook", "hub"]
TOOLS = "uv\nhatchling\neditables\n"


def main() -> None:
    """Resolve run, dev, tools and the images."""
    upgrade = ["--upgrade"] if os.environ.get("UPGRADE") else []
    uv = [str(Path(sys.prefix) / "tools" / "bin" / "uv"), "pip", "compile", *COMMON, *upgrade]
    for name, extras in EXTRAS.items():
        chosen = [word for extra in extras for word in ("--extra", extra)]
        subprocess.run([*uv, *chosen, "pyproject.toml", "-o", f"locks/{name}.lock"], cwd=ROOT, check=True)
    subprocess.run([*uv, "-", "-o", "locks/tools.lock"], cwd=ROOT, check=True, input=TOOLS, text=True)
    for name in IMAGES:
        chosen = ["--extra", f"image-{name}", "--constraints", "locks/dev.lock"]
        subprocess.run([*uv, *chosen, "pyproject.toml", "-o", f"locks/image-{name}.lock"], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
