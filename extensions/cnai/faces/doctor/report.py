"""Report: the results of all checks, one line each, in a terminal or a notebook."""

from __future__ import annotations

import html
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check; `state` is ok, wrong or unknown, `remedy` says what to do."""

    name: str
    state: str
    found: str
    remedy: str = ""

    @classmethod
    def ok(cls, name: str, found: str) -> Check:
        """Return a result without problems."""
        return cls(name, "ok", found)

    @classmethod
    def wrong(cls, name: str, found: str, remedy: str) -> Check:
        """Return a problem and its remedy."""
        return cls(name, "wrong", found, remedy)

    @classmethod
    def unknown(cls, name: str, found: str, remedy: str = "") -> Check:
        """Return the reason why the check has no result."""
        return cls(name, "unknown", found, remedy)

    @property
    def text(self) -> str:
        """Return finding and remedy in one line."""
        return "; ".join(part for part in (self.found, self.remedy) if part).replace("\n", " ")

    def __str__(self) -> str:
        return f"{self.state:<7}  {self.name}: {self.text}"


class Report(list[Check]):
    """Checks, one line each."""

    @property
    def ok(self) -> bool:
        """Tell whether no check is wrong; unknown counts as ok."""
        return all(check.state != "wrong" for check in self)

    def __repr__(self) -> str:
        return "\n".join(map(str, self))

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in ((check.state, check.name, check.text) for check in self)
        )
        return f"<table>{rows}</table>"
