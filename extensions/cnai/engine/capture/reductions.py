"""Reductions: what travels for objects of the notebook that pickle refuses or stores only as a name of `__main__`."""

from __future__ import annotations

import copyreg
import functools
import pickle
import sys
import typing
import weakref
from types import CodeType, FunctionType, MethodType
from typing import Any

from cnai.engine.capture import frozen

_CACHED = type(functools.cache(lambda: None))
_DISPATCHES: CodeType = getattr(functools.singledispatch(lambda _: None), "__code__")  # noqa: B009 # its stub has none


def reduction(obj: Any) -> Any:
    """Return an object's reduction, NotImplemented if pickle's own is right."""
    if isinstance(obj, FunctionType | MethodType):
        return _of_function(obj)
    if isinstance(obj, type):
        return NotImplemented
    if type(obj) is functools.cached_property:  # up to Python 3.11 it holds a lock
        return frozen.cached_attribute, (obj.func, obj.attrname)
    if isinstance(obj, weakref.WeakSet):
        raise TypeError("nothing in the rank would keep its items alive")
    if getattr(obj, "__module__", None) == "__main__":
        return _of_the_notebook(obj)
    if _is(obj, "IPython.core.autocall", "ExitAutocall"):
        return frozen.builtin, ("exit",)
    return NotImplemented


def _of_function(function: Any) -> Any:
    if getattr(function, "__code__", None) is _DISPATCHES and function.__module__ == "__main__":
        registry = dict(function.registry)
        return functools.singledispatch, (registry[object],), registry, None, None, frozen.register
    if function is getattr(sys.modules.get("IPython.core.interactiveshell"), "_modified_open", None):
        return frozen.builtin, ("open",)
    of_shell = isinstance(function, MethodType) and _is(
        function.__self__, "IPython.core.interactiveshell", "InteractiveShell"
    )
    if of_shell and function.__name__ == "get_ipython":
        return frozen.builtin, ("get_ipython",)
    return NotImplemented


def _of_the_notebook(obj: Any) -> Any:
    kind = type(obj)
    if isinstance(obj, _CACHED):
        return frozen.cached, (obj.__wrapped__, obj.cache_parameters())
    if kind is typing.NewType:
        return frozen.named_type, (kind, (obj.__qualname__, obj.__supertype__))
    if kind is typing.TypeVarTuple:
        return frozen.named_type, (kind, (obj.__name__,))
    if kind is typing.ParamSpec:
        return frozen.named_type, (kind, (obj.__name__,), {"bound": obj.__bound__})
    if not {"__reduce__", "__reduce_ex__"} & {name for base in kind.__mro__[:-1] for name in vars(base)}:
        return NotImplemented
    if kind in copyreg.dispatch_table or kind is typing.TypeVar:
        return NotImplemented
    own = obj.__reduce_ex__(pickle.DEFAULT_PROTOCOL)
    if not isinstance(own, str):
        return own
    if kind.__module__ == "__main__":  # a singleton: the rank gets one of its own
        return copyreg.__newobj__, (kind,), obj.__getstate__()  # type: ignore[attr-defined]
    raise pickle.PicklingError(f"pickle stores it only as the name {own!r} of this notebook")


def _is(obj: Any, module: str, name: str) -> bool:
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(obj, kind)
