"""Credentials: the generated secrets of one hub, in a file that only its owner can read."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnai.errors import HubError
from cnai.records import Record
from cnai.tables import Mistake

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "credentials.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials(Record):
    """The passwords of the person and `guest`, and the launcher's token; `repr` hides them."""

    person_password: str
    guest_password: str
    workbench_token: str

    def __repr__(self) -> str:
        return "Credentials(…)"


def load(state: Path) -> Credentials:
    """Read the secrets of this hub; create them on first use (file mode 0600, 43 characters each)."""
    path = state / FILE_NAME
    if not path.exists():
        _write(path, _fresh())
    path.chmod(0o600)
    try:
        return Credentials.from_json(path.read_bytes())
    except Mistake:
        raise HubError(f"{path} is damaged; delete it, and the next start generates new passwords") from None


def _fresh() -> Credentials:
    person, guest, workbench = (secrets.token_urlsafe(32) for _ in range(3))
    return Credentials(person_password=person, guest_password=guest, workbench_token=workbench)


def _write(path: Path, credentials: Credentials) -> None:
    # Create the file with its final mode, then rename it, so that it is never readable by others or half written.
    part = path.with_suffix(".part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123
        file.write(credentials.to_json(indent=1))
    part.replace(path)
