"""The hub on a cluster: a pod for every server, in a namespace of its user's own.

`configure(c, settings)` is everything that the values of the chart call; `settings` are its tables `custom.cnai`.
Nothing else is imported before: what starts a notebook server in its pod lives here too.
"""

from __future__ import annotations

from typing import Any


def configure(c: Any, settings: Any) -> None:
    """Fill in the configuration `c` of a hub; what can't be ends the process with one line that names its key."""
    from cnai_hub.kubernetes.configuration import configure as fill

    fill(c, settings)


__all__ = ["configure"]
