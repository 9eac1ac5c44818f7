"""The hub on a cluster: each server is a pod in the namespace of its user.

The values of the chart only call `configure(c, settings, get_config)`, where `settings` is the table `custom.cnai`,
and `get_config` is the chart's function that returns a value. Other modules are imported only then, because the program
that starts a notebook server in its pod is in this package, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def configure(c: Any, settings: Any, values: Callable[[str], Any] = lambda _: None) -> None:
    """Fill in the configuration `c` of a hub; an invalid setting ends the process with one line that names its key."""
    from cnai_hub.kubernetes.configuration import configure as fill

    fill(c, settings, values)


__all__ = ["configure"]
