"""Where things are: a person's files under `CNAI_HOME`, and the files that cnai itself ships."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cnai.errors import CnaiError

_CHECKOUT = Path(__file__).resolve().parents[2]


def home() -> Path:
    """Return the folder that holds everything of one person: `$CNAI_HOME`, by default `~/cnai`."""
    return Path(os.environ.get("CNAI_HOME") or "~/cnai").expanduser().absolute()


def store_root() -> Path:
    """Return the folder of all runs; every node must reach it under the same path (`$CNAI_STORE`)."""
    return Path(os.environ.get("CNAI_STORE") or home() / "runs").expanduser().absolute()


def engine_dir() -> Path:
    """Return the folder with the local engine's address, lock and logs."""
    return home() / "engine"


def shipped(relative: str) -> Path:
    """Return a file that comes with cnai (`images/catalog.toml`, …), from the checkout or the installation."""
    for root in (_CHECKOUT, Path(sys.prefix) / "share" / "cnai"):
        if (path := root / relative).exists():
            return path
    raise CnaiError(f"{relative} is missing from this installation of cnai; install it again")
