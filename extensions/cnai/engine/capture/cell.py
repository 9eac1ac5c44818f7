"""Capture of a cell: its body as a program that every rank runs."""

from __future__ import annotations

import builtins
import difflib
import re
import sys
from typing import Any

from cnai.engine.capture import flow, frozen, payload, suspects
from cnai.errors import UsageError
from cnai.spec import Target

_MAGIC = re.compile(r"\s*(?:[%!?]|[\w\s,.\[\]'\"]+=\s*[%!])|.*\?\s*$")


def capture_cell(
    source: str, namespace: dict[str, Any], *, returns: tuple[str, ...] = (), cell_name: str = ""
) -> payload.Captured:
    """Freeze a cell's body with the names that it reads from the notebook before it assigns them.

    A first line that starts with `%%` counts as line 1 but does not run. Raises SyntaxError as Python does. Undefined
    names raise NameError in the rank, when the line that reads them runs.
    """
    cell_name = cell_name or "Cell"
    reads, writes = flow.names(_parsed(source, cell_name))
    for name in returns:
        if name not in writes:
            close = difflib.get_close_matches(name, writes, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UsageError(
                f"the cell assigns no {name!r} to return{hint} (it assigns {', '.join(sorted(writes)) or 'nothing'})"
            )
    used = {
        name: namespace[name]
        for name in sorted(reads)
        if name in namespace and not (name.startswith("__") and hasattr(builtins, name)) and name not in _OF_MODULES
    }
    given = suspects.Variables("the cell", None, used)
    namespaces = [namespace, vars(sys.modules["__main__"])]
    try:
        packed = payload.pack(frozen.FrozenCell(source, cell_name, used, tuple(returns)), namespaces)
    except Exception as error:  # noqa: BLE001 # a user's __reduce__ may raise anything
        raise suspects.accuse(given, error) from None
    packed.sources[cell_name] = source
    packed.codes.append(compile(frozen.body(source), cell_name, "exec", dont_inherit=True))
    target = Target(kind="cell", name=payload.target_name(cell_name.lower()), source=cell_name, returns=tuple(returns))
    return payload.captured(target, packed, [], suspects.heavy(given, len(packed.body)))


_OF_MODULES = {"__name__", "__doc__", "__file__", "__package__", "__loader__", "__spec__", "__builtins__"}


def _parsed(source: str, cell_name: str) -> flow.Tree:
    try:
        tree = flow.parse(frozen.body(source), cell_name)
        compile(
            frozen.body(source), cell_name, "exec", dont_inherit=True
        )  # finds errors that parsing does not, such as a return outside a function
    except SyntaxError as error:
        lines = source.splitlines()
        line = lines[error.lineno - 1] if error.lineno and error.lineno <= len(lines) else ""
        if _MAGIC.match(line):
            raise UsageError(
                f"line {error.lineno} of the cell, {line.strip()!r}, is a magic or shell command; ranks run plain "
                "Python: move it to another cell"
            ) from None
        raise
    return tree
