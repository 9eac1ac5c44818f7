"""Kubernetes names, derived from names of users.

Laws, for every user name of at least one character:
- the namespace is a DNS label: at most 63 lowercase letters, digits and `-`, with a letter or digit at both ends;
- the namespace starts with `cnai-`, and never is `cnai-` alone;
- two users never share a namespace unless their names have the same first 48 bits of SHA-256;
- the namespace depends only on the name, so every hub computes the same one at all times;
- a plain short name stays readable: the namespace of `ada` is `cnai-ada`;
- the part after `cnai-` is also a valid value of a label.
"""

from __future__ import annotations

import hashlib
import re

PREFIX = "cnai-"

_PLAIN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_LONGEST = 40
_DIGITS = 12


def namespace_name(user: str) -> str:
    """Return the name of a user's namespace."""
    return PREFIX + tenant_label(user)


def tenant_label(user: str) -> str:
    """Return a user's name as the value of a label: a plain name as it is, others as their readable part and a hash."""
    # A plain name has no `--`, so it never equals the label of another name.
    if _PLAIN.fullmatch(user) and len(user) <= _LONGEST:
        return user
    readable = re.sub(r"[^a-z0-9]+", "-", user.lower()).strip("-")[:_LONGEST].rstrip("-") or "user"
    return f"{readable}--{hashlib.sha256(user.encode('utf-8', 'surrogatepass')).hexdigest()[:_DIGITS]}"
