"""Names that Kubernetes takes, from names that people have.

Laws, for every user name of at least one character:
- the namespace is a DNS label: lowercase letters, digits and `-`, at most 63, a letter or digit at both ends;
- it starts with `cnai-`, and never is `cnai-` alone;
- two users never share one, as long as no two names share the first 48 bits of their SHA-256;
- it depends on the name only, so it is the same in every hub and forever;
- a plain short name stays readable: `ada` lives in `cnai-ada`;
- what comes after `cnai-` is a label's value too.
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
    """Return a user's name as the value of a label: itself when plain, else what is readable of it and a hash."""
    # A plain name has no `--`, so it can't be what another one was turned into.
    if _PLAIN.fullmatch(user) and len(user) <= _LONGEST:
        return user
    readable = re.sub(r"[^a-z0-9]+", "-", user.lower()).strip("-")[:_LONGEST].rstrip("-") or "user"
    return f"{readable}--{hashlib.sha256(user.encode('utf-8', 'surrogatepass')).hexdigest()[:_DIGITS]}"
