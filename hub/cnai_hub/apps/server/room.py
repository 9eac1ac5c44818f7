"""The room of an app server: how many pages may be open at once, and which page is closed for a new viewer.

A page is in use while it is being sent, while its browser loads the scripts that draw it, and while its websocket is
open; a page in use is never closed. An account may have three quarters of all pages: on one machine, all viewers share
the account `guest`.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_PAGES = 24
_LEAST_PAGES = 6
_BYTES_OF_A_PAGE = 256 << 20

LEFT_SECONDS = 5.0
"""A page without a websocket for this long counts as left; a browser that lost its connection reconnects sooner."""

_LOADING_SECONDS = 30.0
"""The time that a browser may take from receiving a page to opening its websocket."""


def most_pages(memory_bytes: float) -> int:
    """Return how many pages an app server with this much memory may have open."""
    return max(_LEAST_PAGES, min(MOST_PAGES, int(memory_bytes // _BYTES_OF_A_PAGE)))


@dataclass(slots=True)
class Page:
    """An open page: `request` is the request that still sends it; an unused page counts as left from `left_at` on."""

    viewer: str
    request: object | None
    sockets: int = 0
    left_at: float = 0.0
    ending: bool = False

    def is_left(self, now: float) -> bool:
        """Tell whether the page's viewer has left it."""
        return self.request is None and not self.sockets and now >= self.left_at


class Room:
    """The pages of an app server by kernel id, from before the kernel starts until it has ended."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.most_of_one = most, most * 3 // 4
        self._clock = clock
        self._pages: dict[str, Page] = {}

    def viewer_of(self, kernel_id: str) -> str | None:
        """Return the viewer who may use a kernel; None if there is no such kernel."""
        page = self._pages.get(kernel_id)
        return page.viewer if page else None

    def refusal(self, viewer: str) -> str:
        """Return why a viewer can't have another page now; empty if they can."""
        if self._has_all(viewer):
            return (
                f"Your account has {self.most_of_one} pages of this app open, which is the limit;"
                " close one of them, or try again later."
            )
        if len(self._pages) >= self.most:
            return f"All {self.most} pages of this app are in use; try again later."
        return ""

    def enter(self, viewer: str, request: object) -> str:
        """Add a page that `request` starts to send, and return the id for its kernel."""
        kernel_id = str(uuid.uuid4())
        self._pages[kernel_id] = Page(viewer, request)
        return kernel_id

    def leave(self, kernel_id: str) -> None:
        """Remove the page of a kernel that has ended or did not start."""
        self._pages.pop(kernel_id, None)

    def longest_left(self, viewer: str) -> str | None:
        """Choose the page to close for a viewer, mark it, and return its kernel id; None if all are in use."""
        now, only_own = self._clock(), self._has_all(viewer)
        left = {
            kernel_id: page.left_at
            for kernel_id, page in self._pages.items()
            if page.is_left(now) and not page.ending and (page.viewer == viewer or not only_own)
        }
        if not left:
            return None
        chosen = min(left, key=left.__getitem__)
        self._pages[chosen].ending = True
        return chosen

    def sent(self, request: object, *, arrived: bool) -> None:
        """Record that a request has ended: the page has arrived, or its viewer disconnected before."""
        for page in self._pages.values():
            if page.request is request:
                page.request = None
                page.left_at = self._clock() + (_LOADING_SECONDS if arrived else LEFT_SECONDS)

    def connected(self, kernel_id: str) -> None:
        """Record that a page has opened a websocket."""
        if page := self._pages.get(kernel_id):
            page.sockets += 1

    def disconnected(self, kernel_id: str) -> None:
        """Record that a websocket of a page has closed."""
        if page := self._pages.get(kernel_id):
            page.sockets = max(0, page.sockets - 1)
            page.left_at = self._clock() + LEFT_SECONDS

    def _has_all(self, viewer: str) -> bool:
        return sum(page.viewer == viewer for page in self._pages.values()) >= self.most_of_one
