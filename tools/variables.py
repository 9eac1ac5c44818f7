"""Tables of the environment variables as Markdown, from their declarations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnai.environment import VARIABLES, Variable

if TYPE_CHECKING:
    from collections.abc import Iterable


def for_people(names: Iterable[str] = ()) -> str:
    """Return the table of the variables that people set, all or only these names."""
    chosen = [each for each in VARIABLES if each.setter == "people" and (not names or each.name in set(names))]
    rows = [f"| `{each}` | {each.meaning} | {_default(each)} |" for each in chosen]
    return "\n".join(["| variable | means | default |", "|---|---|---|", *rows, ""])


def internal() -> str:
    """Return the table of the variables that cnai's own processes set for each other, or that its tests read."""
    rows = [f"| `{each}` | {each.setter} | {each.meaning} |" for each in VARIABLES if each.setter != "people"]
    return "\n".join(["| variable | set by | means |", "|---|---|---|", *rows, ""])


def _default(variable: Variable[Any]) -> str:
    others = "".join(f", on {backend.title()} {_number(value)}" for backend, value in variable.elsewhere.items())
    return f"{variable.shown or _number(variable.default)}{others}"


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
