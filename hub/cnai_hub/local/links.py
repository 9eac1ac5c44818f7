"""One-time links: a link logs in the first person who opens it, under one name, within 30 minutes.

Each link is a file in the hub's state folder. Its name is the token's SHA-256, so the folder doesn't reveal the link.
Using a link deletes its file, so it can't be used twice.
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
    """The content of a link's file: the person to log in, and the expiry in seconds since 1970 (UTC)."""

    person: str
    expires: float


def mint(state: Path, person: str, next_url: str, *, lifetime_seconds: float = LIFETIME_SECONDS) -> str:
    """Create a link that logs `person` in and redirects to `next_url`; return its path below the hub's address."""
    folder = _folder(state)
    _sweep(folder)
    token = secrets.token_urlsafe(32)
    link = Link(person=person, expires=time.time() + lifetime_seconds)
    part = folder / f"{_digest(token)}.part"
    part.write_text(link.to_json())
    part.rename(folder / _digest(token))
    return f"/hub/link/{token}?next={quote(next_url, safe='/')}"


def use(state: Path, token: str) -> str | None:
    """Use up a link and return its person; None if the link was used, has expired or never existed."""
    if not _TOKEN.fullmatch(token):
        return None
    path = _folder(state) / _digest(token)
    try:
        link = Link.from_json(path.read_bytes())
        path.unlink()  # if two people open the link at once, this fails for one of them
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
