"""Roles: the rights of viewers and creators on a hub.

A viewer (`guest`) may only open apps that were shared with them, and has no server and no token. A creator (the person
on a local hub, the members of a group on a cluster) has servers and publishes. JupyterHub's own `admin` role is
unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnai.foreign import Traits

CREATORS = "creators"
WORKBENCH = "workbench"
APPS = "apps"
"""Hub service that publishes apps and lists them."""

OWN = ("user", "creator", APPS)
"""The roles of cnai's hub on a cluster."""

TERMINAL = "apps-terminal"
"""Hub service without a process: the identity of `cnai publish` in a terminal, which acts for the workbench's owner."""

# A server's own token may report activity and authorize access to the server; a notebook server's may also publish.
APP_SCOPES = ["users:activity!user", "access:servers!server"]
SERVER_SCOPES = [*APP_SCOPES, f"access:services!service={APPS}"]


def roles(person: str) -> list[Traits]:
    """Return the roles of a local hub."""
    return [
        *people(CREATORS),
        {
            "name": WORKBENCH,
            "description": "Starts what the first run needs",
            "services": [WORKBENCH],
            "scopes": [f"servers!user={person}", f"access:servers!user={person}", f"read:users!user={person}"],
        },
    ]


def people(creators: str) -> list[Traits]:
    """Return the roles of viewers and of creators; `creators` is a group."""
    return [
        {
            # JupyterHub gives this role to everybody; without the scope `self` users have no server and no token.
            "name": "user",
            "description": "Opens apps",
            "scopes": ["read:users!user", "users:shares!user"],
        },
        {
            "name": "creator",
            "description": "Has servers and publishes apps",
            "groups": [creators],
            "scopes": ["self", "shares!user", "read:users:name", "read:groups:name"],
        },
    ]
