"""Targets: turns the words of `train` into a target and its arguments."""

from __future__ import annotations

import ast
import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnai.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def resolve(
    name: str, words: Sequence[str], namespace: Mapping[str, Any] | None
) -> tuple[Callable[..., Any] | Path, tuple[str, ...], dict[str, Any]]:
    """Return target, args and kwargs as `cnai.train` takes them; without a namespace, in a shell, only scripts work."""
    if is_script(name):
        return Path(name).expanduser(), tuple(str(word) for word in words), {}
    if namespace is None:
        raise UsageError(
            f"target must be a script (a path that ends in .py) on the command line; given: {name}; "
            "train functions from a notebook with %cnai train"
        )
    return _named(name, namespace), (), _parameters(name, words, namespace)


def is_script(name: str) -> bool:
    """Tell whether a target is a path rather than a name in the notebook."""
    return name.endswith(".py") or "/" in name


def functions(namespace: Mapping[str, Any], hidden: Mapping[str, Any] | None = None) -> list[str]:
    """Return the names of the functions that could be trained."""
    return sorted(
        name
        for name, value in namespace.items()
        if callable(value) and not isinstance(value, type) and not name.startswith("_") and name not in (hidden or {})
    )


def _named(name: str, namespace: Mapping[str, Any]) -> Any:
    first, *rest = name.split(".")
    if first not in namespace:
        raise UnknownName(
            "target", name, functions(namespace, _SHELL_NAMES), "run the cell that defines it, or give a script's path"
        )
    value = namespace[first]
    for attribute in rest:
        if not hasattr(value, attribute):
            raise UsageError(f"target {name}: {type(value).__name__} has no {attribute!r}")
        value = getattr(value, attribute)
    return value


# IPython puts these names into every namespace; nobody wants to train them.
_SHELL_NAMES = dict.fromkeys(("exit", "quit", "open", "get_ipython", "display"))


def _parameters(target: str, words: Sequence[str], namespace: Mapping[str, Any]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for word in words:
        name, equals, text = getattr(word, "raw", word).partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"parameters of {target} have the form name=value, such as lr=0.1; given: {word}")
        if name in parameters:
            raise UsageError(f"parameter {name} is given twice; give it once")
        parameters[name] = _value(name, text, namespace)
    return parameters


def _value(name: str, text: str, namespace: Mapping[str, Any]) -> Any:
    """Evaluate a parameter as Python would in a cell of the notebook."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    try:
        return eval(text, dict(namespace))  # noqa: S307 # the user's own notebook
    except NameError as error:
        close = difflib.get_close_matches(str(error.name), namespace, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UsageError(
            f"{name}={text}: the notebook has no {error.name!r}; {hint}a string needs quotes: {name}='{text}'"
        ) from None
    except Exception as error:  # noqa: BLE001 # the user's expression may raise anything
        raise UsageError(f"{name}={text} can't be evaluated: {type(error).__name__}: {error}") from None
