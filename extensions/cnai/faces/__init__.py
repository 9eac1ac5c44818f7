"""Faces: the user interfaces of cnai. `%load_ext cnai` adds the magic, tab completion and run views to a shell.

Loading is cheap and imports only IPython and ground. Heavy modules load on first use, or in the warm-up, which starts
after the cell that loaded the extension.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from cnai import programs

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

RUN = (programs.RUN, "Run")


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Install the magic, completion and views into a shell."""
    from cnai.faces.completion import matcher
    from cnai.faces.magics import CnaiMagic

    magic = CnaiMagic(shell)
    for kind in ("line", "cell"):
        shell.register_magic_function(magic, kind, "cnai")
    shell.Completer.custom_matchers.append(matcher(shell))
    formatters = shell.display_formatter
    formatters.formatters["text/plain"].for_type_by_name(*RUN, _print_run)
    if getattr(shell, "kernel", None) is not None:
        formatters.ipython_display_formatter.for_type_by_name(*RUN, _show_run)
    _warm_up_after_this_cell(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Remove the magic, completion and views from a shell; runs continue."""
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("cnai", None)
    matchers = shell.Completer.custom_matchers
    matchers[:] = [each for each in matchers if not getattr(each, "of_cnai", False)]
    name = ".".join(RUN)
    shell.display_formatter.formatters["text/plain"].pop(name, None)
    shell.display_formatter.ipython_display_formatter.pop(name, None)


def _print_run(run: Any, printer: Any, _cycle: bool) -> None:
    from cnai.faces.text import summary

    printer.text(summary(run))


def _show_run(run: Any) -> None:
    from cnai.faces.widgets import show

    show(run)


def _warm_up_after_this_cell(shell: InteractiveShell) -> None:
    def begin(*_: Any) -> None:
        shell.events.unregister("post_run_cell", begin)
        threading.Thread(target=_warm_up, name="cnai-load", daemon=True).start()

    shell.events.register("post_run_cell", begin)


def _warm_up() -> None:
    from cnai.run import warm_up

    warm_up()
