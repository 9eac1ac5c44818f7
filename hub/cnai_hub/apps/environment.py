"""The environment of programs that run people's code: everything but what speaks to the hub in somebody's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_OF_THE_HUB = ("JUPYTERHUB_", "JPY_", "CONFIGPROXY_", "CNAI_HUB_", "CNAI_APPS_")


def without_hub(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the hub's tokens, addresses and settings."""
    return {name: value for name, value in environment.items() if not name.startswith(_OF_THE_HUB)}
