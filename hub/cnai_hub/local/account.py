"""The account that runs the hub: on one machine, the account of the hub's owner."""

from __future__ import annotations

import os
import pwd
import re

from cnai import environment
from cnai.errors import HubError

# Characters that JupyterHub can put into addresses, scopes and file names alike.
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")


def person_name() -> str:
    """Return the login name of the hub's owner: `$CNAI_PERSON`, or the name of this account."""
    given = environment.PERSON.get() or account_name()
    name = given.lower()
    if not _NAME.fullmatch(name):
        raise HubError(
            f"{given!r} can't be a login name; set {environment.PERSON} to a name of letters, digits and . _ @ -"
        )
    return name


def account_name() -> str:
    """Return the name of this account, or `user<uid>` if it has no name, as in containers that run with a bare uid."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"user{os.getuid()}"


def account_home() -> str:
    """Return this account's home folder."""
    try:
        return os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/"
