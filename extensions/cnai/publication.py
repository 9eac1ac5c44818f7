"""Publication: the routes of the apps service and the limits of an app's name and size, shared by author and hub."""

from __future__ import annotations

import re

from cnai.errors import UsageError

CHECK, APPS, RELEASES = "api/check", "api/apps", "api/releases"
"""Routes of the apps service, below its own address."""

SERVER_PREFIX = "app-"
# JupyterHub allows server names of 30 characters: lowercase letters, digits, single hyphens.
_SLUG = re.compile(r"[a-z0-9](-?[a-z0-9])*")
LONGEST_SLUG = 30 - len(SERVER_PREFIX)

MOST_FILES = 500
MOST_BYTES = 50 * 2**20
MOST_RUN_BYTES = 50 * 2**20
RUN_FILES = ("spec.json", "record.json", "state.json", "events.jsonl", "result")
"""The files of a run that an app needs, always the first two; checkpoints, code and data stay with the author."""


def valid_slug(slug: str) -> bool:
    """Tell whether an app may have this name."""
    return len(slug) <= LONGEST_SLUG and _SLUG.fullmatch(slug) is not None


def checked_slug(slug: str) -> str:
    """Return a valid app's name; raises UsageError otherwise."""
    if not valid_slug(slug):
        raise UsageError(
            f"{slug!r} can't be an app's name; allowed: lowercase letters, digits and single '-' between them, "
            f"at most {LONGEST_SLUG} characters"
        )
    return slug
