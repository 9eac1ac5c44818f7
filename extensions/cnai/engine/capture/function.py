"""Capture of a function with its arguments."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any

from cnai.engine.capture import fingerprints, frozen, payload, sources, suspects
from cnai.errors import UsageError
from cnai.spec import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def capture_function(
    function: Callable[..., Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
) -> payload.Captured:
    """Freeze a function with its arguments, everything that it uses from the notebook, and the local modules."""
    kwargs = dict(kwargs or {})
    name = _check(function, tuple(args), kwargs)
    kwargs = _in_order(function, kwargs)
    given = suspects.Variables(name, function, _by_name(function, tuple(args), kwargs))
    namespaces = [vars(sys.modules["__main__"])]
    body = frozen.FrozenFunction(function, tuple(args), kwargs)
    try:
        packed = payload.pack(body, namespaces)
    except Exception as error:  # noqa: BLE001 # a user's __reduce__ may raise anything
        raise suspects.accuse(given, error) from None
    target = Target(kind="function", name=payload.target_name(name), source=_place(function))
    return payload.captured(target, packed, [], suspects.heavy(given, len(packed.body)))


def unsteady(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return the name of a variable of the function that is pickled differently each time, "" if there is none."""
    given = suspects.Variables(_name(function), function, _by_name(function, args, kwargs))
    return suspects.first(given, lambda value: not fingerprints.is_steady(value))


def _in_order(function: Callable[..., Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return keyword arguments in the order of the parameters: a function sees another order only with `**`."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return kwargs
    return {**{name: kwargs[name] for name in parameters if name in kwargs}, **kwargs}


def _check(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, object]) -> str:
    if not callable(function):
        raise UsageError(
            f"target must be a function or the path of a script; given: {_short(function)} ({type(function).__name__})"
        )
    name = _name(function)
    if (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    ):
        raise UsageError(
            f"{name} is an async function or a generator; target must be a plain function (def without yield)"
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have no signature
        return name
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        words = ", ".join([*map(_short, args), *(f"{key}={_short(value)}" for key, value in kwargs.items())])
        raise UsageError(f"{name}{signature} can't be called as {name}({words}): {error}") from None
    return name


def _by_name(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, object]) -> Mapping[str, object]:
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return {**{f"argument {number}": value for number, value in enumerate(args, 1)}, **kwargs}
    return dict(bound.arguments)


def _name(function: Any) -> str:
    if isinstance(function, functools.partial):
        return _name(function.func)
    return str(getattr(function, "__name__", type(function).__name__)).replace("<lambda>", "lambda")


def _place(function: Any) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return f"{getattr(function, '__module__', '')}.{_name(function)}".strip(".")
    return f"{sources.shown_name(code.co_filename)}, line {code.co_firstlineno}"


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "…"
