"""Ending: ends a rank as Python ends a program, but for modules of libraries, which take half a second to tear down.

The order is Python's: threads, exit handlers, the program's own objects, open files.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import io
import sys
import threading
import traceback
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cnai.engine.capture import sources

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet


def exit_code(leave: SystemExit) -> int:
    """Return the exit code of `sys.exit(…)`; prints a text to stderr, as Python does."""
    if leave.code is None:
        return 0
    if isinstance(leave.code, int):
        return leave.code & 0xFF
    print(leave.code, file=sys.stderr)  # noqa: T201
    return 1


def run_handlers() -> None:
    """Wait for threads, then call the exit handlers, those of process pools included."""
    threads: Any = threading
    with _survived():
        threads._shutdown()
    with _survived():
        atexit._run_exitfuncs()


def destroy_program(libraries: AbstractSet[str]) -> None:
    """Destroy the program's own objects, then write every buffer that is left.

    `libraries` are the names of modules that were loaded before the program.
    """
    threading.excepthook = lambda _: None  # Python's daemon threads stand still by now; these may miss a global
    with _survived():
        for module in _own_modules(libraries):
            _empty(module)
        gc.collect()
        _close_files()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    ctypes.CDLL(None).fflush(None)


@contextmanager
def _survived() -> Iterator[None]:
    """Show any exception, even of a signal handler, and go on: Python does the same at this point."""
    try:
        yield
    except BaseException:  # noqa: BLE001
        traceback.print_exc()


def _own_modules(libraries: AbstractSet[str]) -> list[ModuleType]:
    """Return `__main__` and the author's modules, last imported first."""
    own = [module for name, module in sys.modules.items() if name not in libraries and _is_own(module)]
    return [*reversed(own), sys.modules["__main__"]]


def _is_own(module: object) -> bool:
    file = vars(module).get("__file__") if type(module) is ModuleType else None
    return isinstance(file, str) and sources.travels(file)


def _empty(module: ModuleType) -> None:
    """Set a module's names to None, as Python does, so that objects that still use them find them."""
    names = vars(module)
    for name in list(names):
        if not name.startswith("__"):
            names[name] = None


def _close_files() -> None:
    files = [each for each in gc.get_objects() if issubclass(type(each), io.IOBase)]
    ours = {sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__}
    for file in sorted(files, key=_depth):
        if file not in ours:
            with suppress(Exception):
                file.close()


def _depth(file: io.IOBase) -> int:
    """Order wrappers before what they write to: text, then files in Python such as gzip's, then buffers."""
    if isinstance(file, io.TextIOBase):
        return 0
    return 2 if type(file).__module__ == "_io" else 1
