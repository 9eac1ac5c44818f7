"""Records: frozen dataclasses that cross a process or a disk as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Self

from cnai.tables import Mistake, build


class Record:
    """Base of dataclasses with JSON forms.

    Reading is strict about types and missing keys, but ignores unknown keys, which a newer version may have written.
    """

    __slots__ = ()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote; raises Mistake with the path of an invalid key."""
        return cls.of(parsed(text))

    @classmethod
    def of(cls, table: object) -> Self:
        """Read a record from parsed JSON."""
        return build(cls, table, lenient=True)

    def to_json(self, indent: int | None = None) -> str:
        """Return the record as JSON: one line, or indented for people."""
        return json.dumps(self.plain(), indent=indent)

    def plain(self) -> dict[str, Any]:
        """Return the record as plain objects, for a library that writes JSON."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]


def parsed(text: str | bytes) -> object:
    """Return the value of a JSON text; raises Mistake."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Mistake((), f"is not JSON ({error})") from None
    return value
