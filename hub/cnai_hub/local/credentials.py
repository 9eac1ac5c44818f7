"""Credentials: the generated secrets of one hub, in a file that only its owner can read."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from cnai.errors import HubError

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "credentials.json"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Passwords that people type, and the token that the launcher uses. `repr` shows none of them."""

    person_password: str
    guest_password: str
    workbench_token: str

    def __repr__(self) -> str:
        return "Credentials(…)"


def load(state: Path) -> Credentials:
    """Read the secrets of this hub, made on first use (0600, 43 characters each)."""
    path = state / FILE_NAME
    if not path.exists():
        _write(path, Credentials(*(secrets.token_urlsafe(32) for _ in range(3))))
    path.chmod(0o600)
    try:
        return Credentials(**json.loads(path.read_text()))
    except (TypeError, ValueError):
        raise HubError(f"{path} is damaged; delete it, and new passwords are made at the next start") from None


def _write(path: Path, credentials: Credentials) -> None:
    # Opened with its final mode, then renamed: never readable by others, never half written.
    part = path.with_suffix(".part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123
        json.dump(asdict(credentials), file, indent=1)
    part.replace(path)
