"""Waiting that ends."""

from __future__ import annotations

import time

SECONDS = 120


def until(condition, what=""):
    """Call `condition` until it is true; fails after two minutes."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS} s: {what}"
        time.sleep(0.01)
