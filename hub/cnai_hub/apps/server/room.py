"""The room of an app server: how many pages may be open at once, and which of them ends for a newcomer.

A page is in use while it is sent, while its browser loads what draws it, and while its websocket is open; nobody who
uses a page loses it. An account may have three quarters of all pages: on one machine `guest` is everybody.
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
"""A page without a websocket for so long has been left; a browser that lost its connection is back earlier."""

_LOADING_SECONDS = 30.0
"""A browser may take so long from the end of a page to its websocket."""


def most_pages(memory_bytes: float) -> int:
    """Return how many pages an app server may have open with so much memory."""
    return max(_LEAST_PAGES, min(MOST_PAGES, int(memory_bytes // _BYTES_OF_A_PAGE)))


@dataclass(slots=True)
class Page:
    """An open page: `request` is what still sends it, `left_at` when it counts as left unless somebody uses it."""

    viewer: str
    request: object | None
    sockets: int = 0
    left_at: float = 0.0
    ending: bool = False

    def is_left(self, now: float) -> bool:
        """Tell whether nobody looks at it any more."""
        return self.request is None and not self.sockets and now >= self.left_at


class Room:
    """The pages of an app server by their kernel, from before its start until it has ended."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.most_of_one = most, most * 3 // 4
        self._clock = clock
        self._pages: dict[str, Page] = {}

    def viewer_of(self, kernel_id: str) -> str | None:
        """Return who may use a kernel; None if there is no such kernel."""
        page = self._pages.get(kernel_id)
        return page.viewer if page else None

    def refusal(self, viewer: str) -> str:
        """Say why a viewer can't have another page now; empty when they can."""
        if self._has_all(viewer):
            return (
                f"Your account has {self.most_of_one} pages of this app open, which is the limit;"
                " close one of them, or try again later."
            )
        if len(self._pages) >= self.most:
            return f"All {self.most} pages of this app are in use; try again later."
        return ""

    def enter(self, viewer: str, request: object) -> str:
        """Take the place of a page that `request` starts to send, and return the id that its kernel is to have."""
        kernel_id = str(uuid.uuid4())
        self._pages[kernel_id] = Page(viewer, request)
        return kernel_id

    def leave(self, kernel_id: str) -> None:
        """Give back the place of a kernel that has ended or did not start."""
        self._pages.pop(kernel_id, None)

    def longest_left(self, viewer: str) -> str | None:
        """Mark the page to end so that a viewer gets one, and return its kernel; None if all are in use."""
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
        """Note that a request has ended: the page has arrived, or its viewer went away before."""
        for page in self._pages.values():
            if page.request is request:
                page.request = None
                page.left_at = self._clock() + (_LOADING_SECONDS if arrived else LEFT_SECONDS)

    def connected(self, kernel_id: str) -> None:
        """Note that a page has opened a websocket."""
        if page := self._pages.get(kernel_id):
            page.sockets += 1

    def disconnected(self, kernel_id: str) -> None:
        """Note that a websocket of a page has closed."""
        if page := self._pages.get(kernel_id):
            page.sockets = max(0, page.sockets - 1)
            page.left_at = self._clock() + LEFT_SECONDS

    def _has_all(self, viewer: str) -> bool:
        return sum(page.viewer == viewer for page in self._pages.values()) >= self.most_of_one
