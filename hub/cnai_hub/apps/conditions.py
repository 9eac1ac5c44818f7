"""Conditions under which an app's notebook runs, for its viewers and in the trial before.

Where this account can't have a condition of an app (another home on a cluster), the trial's parent imitates it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING

from cnai import environment

if TYPE_CHECKING:
    from collections.abc import Mapping

A_VISIT = {
    "PATH_INFO": "",
    "QUERY_STRING": "",
    "SCRIPT_NAME": "/",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_SOFTWARE": "voila",
}
"""The variables by which Voila describes a viewer's request, for a visit without parameters."""

_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE = 1


def of_kernel(given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of an app's kernel: no access to the hub, no packages from its author's home."""
    return {**environment.without_hub(given), environment.APP.name: "1", "PYTHONNOUSERSITE": "1"}


def respect_modes() -> None:
    """Let programs that this process starts write only where file modes allow it, even if the account is root.

    A release is read-only. Other accounts find that out by themselves.
    """
    if os.geteuid() == 0 and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0)
