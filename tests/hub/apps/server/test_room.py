"""Which page is closed for a new viewer, and which viewers have to wait, on a clock that the tests control."""

from __future__ import annotations

import pytest

from cnai_hub.apps.server.room import LEFT_SECONDS, MOST_PAGES, Room, most_pages


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def room(clock):
    """Room for 8 pages, 6 of one account."""
    return Room(8, clock)


def shown(room, viewer):
    """Open a page that has arrived and has its websocket."""
    request = object()
    page = room.enter(viewer, request)
    room.sent(request, arrived=True)
    room.connected(page)
    return page


@pytest.mark.parametrize(("gib", "pages"), [(0.5, 6), (1, 6), (2, 8), (4, 16), (64, MOST_PAGES)])
def test_memory_decides_how_many_pages_there_may_be(gib, pages):
    assert most_pages(gib * 2**30) == pages


def test_pages_that_are_being_sent_count(room):
    for _ in range(6):
        assert room.refusal("ada") == ""
        room.enter("ada", object())
    assert room.refusal("ada").startswith("Your account has 6 pages of this app open")
    assert room.refusal("eve") == ""
    assert room.longest_left("ada") is None


def test_a_page_in_use_never_ends(room, clock):
    pages = [shown(room, viewer) for viewer in "aaaaaabb"]
    clock.now += 1e6
    assert room.refusal("c") == "All 8 pages of this app are in use; try again later."
    assert room.longest_left("c") is None
    # A second tab of the same page, or a browser that came back before its lost connection was noticed.
    room.connected(pages[0])
    room.disconnected(pages[0])
    clock.now += 1e6
    assert room.longest_left("c") is None


def test_the_page_that_was_left_first_ends_first_and_once(room, clock):
    pages = [shown(room, viewer) for viewer in "aaaaaabb"]
    for page in (pages[5], pages[2]):
        room.disconnected(page)
        clock.now += 1
    assert room.longest_left("c") is None
    clock.now += LEFT_SECONDS
    assert [room.longest_left("c") for _ in range(3)] == [pages[5], pages[2], None]
    # A page keeps its place until its kernel has ended.
    assert room.refusal("c")
    room.leave(pages[5])
    assert room.refusal("c") == ""


def test_a_lost_connection_that_comes_back_keeps_its_page(room, clock):
    page = shown(room, "a")
    for _ in range(7):
        shown(room, "b")
    room.disconnected(page)
    clock.now += LEFT_SECONDS / 2
    room.connected(page)
    clock.now += LEFT_SECONDS
    assert room.longest_left("c") is None


def test_an_account_that_has_all_it_may_have_ends_only_its_own(room, clock):
    other = shown(room, "eve")
    room.disconnected(other)
    clock.now += 1
    own = [shown(room, "ada") for _ in range(6)]
    room.disconnected(own[3])
    clock.now += LEFT_SECONDS
    assert room.longest_left("ada") == own[3]


def test_a_page_that_nobody_receives_is_left_sooner_than_one_that_loads(room, clock):
    gone, loads = object(), object()
    pages = [room.enter("ada", request) for request in (gone, loads)]
    for _ in range(6):
        shown(room, "eve")
    room.sent(gone, arrived=False)
    room.sent(gone, arrived=True)  # Tornado reports both
    room.sent(loads, arrived=True)
    clock.now += LEFT_SECONDS
    assert [room.longest_left("bob") for _ in range(2)] == [pages[0], None]
    clock.now += 60
    assert room.longest_left("bob") == pages[1]
