"""Echoes: recognizes exceptions that only report a lost or late peer."""

from __future__ import annotations

import re

# Messages of gloo, NCCL and TCPStore in torch 2.13 to 2.15.
_COLLECTIVE = re.compile(
    "|".join(
        (
            r"Connection (closed|reset) by peer|Connection refused|Broken pipe",
            r"Timed out (after )?waiting|wait timeout|Application timeout",
            r"\[.*gloo/transport|gloo connectFullMesh",
            r"NCCL (error|watchdog)|ncclRemoteError|DistNetworkError|DistStoreError",
        )
    )
)


def is_echo(summary: str) -> bool:
    """Tell whether an exception only reports that another rank is lost or late."""
    return bool(_COLLECTIVE.search(summary))
