"""Paths: a person's files under `CNAI_HOME`, and the files that cnai ships.

Runs hold code, data and results, so their folders have mode 0700: `private` is the one rule for this.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from cnai import environment
from cnai.errors import CnaiError

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHECKOUT = Path(__file__).resolve().parents[2]
_FOR_A_GROUP = stat.S_ISGID | stat.S_IWGRP

_log = logging.getLogger(__name__)


def home() -> Path:
    """Return the folder of all files of one person: `$CNAI_HOME`, by default `~/cnai`."""
    return Path(environment.HOME.get()).expanduser().absolute()


def store_root() -> Path:
    """Return the folder of all runs; every node must reach it under the same path (`$CNAI_STORE`)."""
    return Path(environment.STORE.get() or home() / "runs").expanduser().absolute()


def engine_dir() -> Path:
    """Return the folder with the local engine's address, lock and logs."""
    return home() / "engine"


def compiled_dir(environment: Mapping[str, str]) -> str:
    """Return the folder for code that torch compiles and runs again: the person's own choice, or one in the home.

    torch's default is in the folder for temporary files, where another account may have created it. A process that has
    imported torch has that default in its environment; it is nobody's choice.
    """
    given = environment.get("TORCHINDUCTOR_CACHE_DIR", "")
    chosen = given and not Path(given).name.startswith("torchinductor_")
    return given if chosen else str(home() / "engine" / "torchinductor")


def private(folder: Path) -> Path:
    """Close a folder to other accounts, whatever the umask, and return it; creates it if necessary.

    If it is below `home()`, that is closed as well. Existing folders are corrected, except folders of other accounts
    and shared ones; a warning says once per process that others can open them. Raises OSError.
    """
    if home() in folder.parents:
        _close(home())
    _close(folder)
    if open_to_others(folder):
        _warn(folder)
    return folder


def _close(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except FileNotFoundError:
        _close(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:  # usually FileExistsError; other errors below an automounter or on a read-only disk
        if not folder.is_dir():
            raise
        status = folder.stat()
        if _is_ours(folder, status):
            _correct(folder, stat.S_IMODE(status.st_mode))


def _is_ours(folder: Path, status: os.stat_result) -> bool:
    """Tell whether an existing folder belongs to this account and is not shared with other software."""
    resolved = folder.resolve()
    return (
        status.st_uid == os.geteuid()
        and not status.st_mode & stat.S_ISVTX  # like /tmp, for all accounts
        and not os.path.ismount(resolved)  # kubelet, or the mount's owner, decides its mode
        and resolved.parent != Path(resolved.anchor)  # root also owns /srv and /opt
        and resolved != Path(os.path.expanduser("~")).resolve()  # noqa: PTH111 - never raises
    )


def _correct(folder: Path, mode: int) -> None:
    # A folder with setgid and write permission for its group is shared with the group on purpose.
    others = 0o007 if mode & _FOR_A_GROUP == _FOR_A_GROUP else 0o077
    if mode & others:
        with suppress(OSError):  # the file system has no modes; `private` warns
            folder.chmod(mode & ~others)


def remove_tree(folder: Path) -> None:
    """Delete a folder, even a frozen one."""
    for path in [folder, *folder.rglob("*")] if folder.exists() else []:
        if path.is_dir() and not path.is_symlink():
            path.chmod(stat.S_IRWXU)
    shutil.rmtree(folder, ignore_errors=True)


def open_to_others(folder: Path) -> bool:
    """Tell whether every account of this machine can list a folder or open its files."""
    resolved = folder.resolve()
    reached = all(above.stat().st_mode & stat.S_IXOTH for above in resolved.parents)
    return reached and bool(resolved.stat().st_mode & (stat.S_IROTH | stat.S_IXOTH))


@cache
def _warn(folder: Path) -> None:
    _log.warning(
        "other accounts can open %s, which is shared and stays open; cnai closes folders that it creates in it",
        folder,
    )


def shipped(relative: str) -> Path:
    """Return a file that cnai ships (`images/catalog.toml`, …), from the checkout or the installation."""
    for root in (_CHECKOUT, Path(sys.prefix) / "share" / "cnai"):
        if (path := root / relative).exists():
            return path
    raise CnaiError(f"{relative} is missing from this installation of cnai; install it again")
