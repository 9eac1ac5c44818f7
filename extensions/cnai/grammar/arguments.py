"""Arguments: the flags and words of a verb, and the functions that parse them."""

from __future__ import annotations

import argparse
import difflib
import re
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from cnai.spec import RunSpec

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = Literal["target", "run", "app", "notebook", "flavor", "image", "backend", "action", "people", "path", ""]
"""The kind of thing that an argument names; tab completion offers names of this kind."""

_TIME = re.compile(r"(\d+(?:\.\d+)?|\.\d+)([smhd]?)")
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
CLUSTER_ACTIONS = ("status", "start", "stop")
_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(RunSpec) if field.default is not MISSING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One flag or positional word. `metavar` is empty for a switch; a flag with `many` may be repeated."""

    names: tuple[str, ...]
    dest: str
    help: str
    metavar: str = ""
    read: Callable[[str], Any] = str
    kind: Kind = ""
    many: bool = False
    optional: bool = True

    @property
    def flag(self) -> bool:
        """Tell whether the argument is a flag, which starts with a dash."""
        return self.names[0].startswith("-")

    @property
    def default(self) -> str:
        """Return RunSpec's default as text; empty if there is no default worth showing."""
        value = _DEFAULTS.get(self.dest)
        if value is None or value == "" or not self.flag or not self.metavar or self.many:
            return ""
        return f"{value:g} s" if isinstance(value, float) else str(value)


def whole(text: str) -> int:
    """Parse a whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"takes a whole number; given: {text}") from None


def seconds(text: str) -> float:
    """Parse a time (`90`, `90s`, `5m`, `2h` or `1d`) into seconds."""
    if not (match := _TIME.fullmatch(text)):
        raise argparse.ArgumentTypeError(f"takes a time such as 90 (seconds), 30s, 5m, 2h or 1d; given: {text}")
    return float(match[1]) * _SECONDS[match[2]]


def pair(text: str) -> tuple[str, str]:
    """Parse `KEY=VALUE`."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"takes KEY=VALUE; given: {text}")
    return key, value


def names(text: str) -> tuple[str, ...]:
    """Parse `a,b,c`."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def people(text: str) -> tuple[str, ...]:
    """Parse names of users and groups, at least one."""
    if not (given := names(text)):
        raise argparse.ArgumentTypeError(
            f"takes names of users or groups; given: {text!r}; --private shares with nobody"
        )
    return given


def python_names(text: str) -> tuple[str, ...]:
    """Parse names of variables, such as `loss,model`."""
    given = names(text)
    if not given or not all(name.isidentifier() for name in given):
        raise argparse.ArgumentTypeError(f"takes names of variables such as loss,model; given: {text}")
    return given


def action(text: str) -> str:
    """Parse an action on the cluster."""
    if text not in CLUSTER_ACTIONS:
        close = difflib.get_close_matches(text, CLUSTER_ACTIONS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise argparse.ArgumentTypeError(f"takes {', '.join(CLUSTER_ACTIONS)}; given: {text}{hint}")
    return text


def flag(spelling: str, metavar: str, text: str, read: Callable[[str], Any] = str, **more: Any) -> Argument:
    """Define a flag: `spelling` may hold several names, separated by slashes; a switch has no metavar."""
    spellings = tuple(f"--{name}" for name in spelling.split("/"))
    given = {"dest": spellings[0][2:].replace("-", "_"), **more}
    return Argument(names=spellings, metavar=metavar, help=text, read=read, **given)


def word(name: str, metavar: str, text: str, read: Callable[[str], Any] = str, **more: Any) -> Argument:
    """Define a positional word."""
    return Argument(names=(name,), dest=name, metavar=metavar, help=text, read=read, **more)
