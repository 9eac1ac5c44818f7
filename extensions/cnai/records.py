"""Records: frozen dataclasses that cross a process or a disk as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Self

from cnai.tables import Mistake, build


class Record:
    """Base of dataclasses with JSON forms.

    Reading is strict about types and about missing keys; keys that the class doesn't have are ignored, since a newer
    version may have written them.
    """

    __slots__ = ()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote; a Mistake says what can't be, with the path of its key."""
        return cls.of(parsed(text))

    @classmethod
    def of(cls, table: object) -> Self:
        """Read a record from JSON that is parsed already."""
        return build(cls, table, lenient=True)

    def to_json(self, indent: int | None = None) -> str:
        """Return the record as JSON: one line, or indented for people."""
        return json.dumps(self.plain(), indent=indent)

    def plain(self) -> dict[str, Any]:
        """Return the record as plain objects, for a library that makes JSON of them."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]


def parsed(text: str | bytes) -> object:
    """Return what JSON text says, or raise a Mistake."""
    try:
        said: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Mistake((), f"is not JSON ({error})") from None
    return said
