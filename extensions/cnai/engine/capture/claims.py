"""Claims: objects of this process that look as if they could travel, but would silently work differently in a rank."""

from __future__ import annotations

from weakref import WeakValueDictionary

_claimed: WeakValueDictionary[int, object] = WeakValueDictionary()


class ClaimedError(TypeError):
    """An object belongs to this process."""


def claim(thing: object) -> None:
    """Let capture refuse an object that a context prepared in this process; in a rank it would be unprepared."""
    _claimed[id(thing)] = thing


def refuse_claimed(thing: object) -> None:
    """Raise ClaimedError if an object is claimed."""
    if claimed(thing):
        raise ClaimedError("a context prepared it in this notebook, so each rank would train it alone")


def claimed(thing: object) -> bool:
    """Tell whether an object is claimed."""
    return _claimed.get(id(thing)) is thing
