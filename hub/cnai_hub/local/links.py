"""One-time links: whoever opens the address is logged in once, as one person, for a short while.

A link is a file in the hub's state folder: its name is the token's SHA-256, so the folder gives no link away,
and using a link is deleting its file, so it can't be used twice.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from cnai import paths
from cnai.records import Record
from cnai.tables import Mistake

if TYPE_CHECKING:
    from pathlib import Path

LIFETIME_SECONDS = 30 * 60.0
_TOKEN = re.compile(r"[\w-]{43}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link(Record):
    """A link's file: the person whom it logs in, and its end in seconds since 1970 (UTC)."""

    person: str
    expires: float


def mint(state: Path, person: str, next_url: str, *, lifetime_seconds: float = LIFETIME_SECONDS) -> str:
    """Return the path of a new link, below the hub's address, that logs `person` in and goes on to `next_url`."""
    folder = _folder(state)
    _sweep(folder)
    token = secrets.token_urlsafe(32)
    link = Link(person=person, expires=time.time() + lifetime_seconds)
    part = folder / f"{_digest(token)}.part"
    part.write_text(link.to_json())
    part.rename(folder / _digest(token))
    return f"/hub/link/{token}?next={quote(next_url, safe='/')}"


def use(state: Path, token: str) -> str | None:
    """Return whom the link logs in, and end the link; None when it was used, has expired or never was."""
    if not _TOKEN.fullmatch(token):
        return None
    path = _folder(state) / _digest(token)
    try:
        link = Link.from_json(path.read_bytes())
        path.unlink()  # of two who open it at once, one is told that it is gone
    except (FileNotFoundError, Mistake):
        return None
    return link.person if time.time() < link.expires else None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _folder(state: Path) -> Path:
    return paths.private(state / "links")


def _sweep(folder: Path) -> None:
    for path in folder.iterdir():
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > LIFETIME_SECONDS:
                path.unlink()
