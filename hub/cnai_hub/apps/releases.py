"""Releases: frozen versions of published notebooks, on disk.

    apps/<owner>/<slug>/app.json                 the app: title, date, which release is current, who may open it
    apps/<owner>/<slug>/releases/<n>/release.json  what release n was made of: notebook, files, Python, packages
    apps/<owner>/<slug>/releases/<n>/files/        the snapshot that is served; read-only

A release is written to a new folder; replacing `app.json` by rename makes it current. Whatever happens before that
leaves the old release current.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = "app-"
# JupyterHub allows server names of 30 characters: lowercase letters, digits, single hyphens.
_SLUG = re.compile(r"[a-z0-9](-?[a-z0-9])*")
_LONGEST_SLUG = 30 - len(PREFIX)


def valid_slug(slug: str) -> bool:
    """Tell whether an app may have this name."""
    return len(slug) <= _LONGEST_SLUG and _SLUG.fullmatch(slug) is not None


def slug_of(server_name: str) -> str | None:
    """Return the app that a server's name stands for, None if it's not an app's name."""
    slug = server_name.removeprefix(PREFIX)
    return slug if server_name.startswith(PREFIX) and valid_slug(slug) else None


class Store:
    """All apps under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, owner: str, slug: str) -> Path:
        """Return an app's folder, whether it exists or not."""
        return self.root / quote(owner, safe="@").replace(".", "%2E") / slug
