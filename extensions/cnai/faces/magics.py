"""Magics: `%cnai` and `%%cnai`. A magic parses its line, calls the API's function and returns the function's result."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any

from IPython.core.magic import needs_local_scope, no_var_expand

from cnai.errors import CnaiError, UsageError
from cnai.events import State
from cnai.faces.own import authors_part, plain_warnings
from cnai.grammar import HelpAsked, parse, split

if TYPE_CHECKING:
    from argparse import Namespace

    from IPython.core.interactiveshell import InteractiveShell

    from cnai.run import Run


@no_var_expand  # braces belong to Python literals: opt={"lr": 0.1}
@needs_local_scope
class CnaiMagic:
    """Train over many ranks and publish apps: %cnai --help lists the verbs, %cnai train --help describes one."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self.__doc__ = type(self).__doc__
        self.__name__ = "cnai"

    def __call__(self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> Any:
        """Execute the request in a line or a cell."""
        __tracebackhide__ = True  # IPython hides frames with this variable
        try:
            request = parse(split(line), "%cnai" if cell is None else "%%cnai")
        except HelpAsked as asked:
            sys.stdout.write(f"{asked}\n")
            return None
        namespace = {**self._shell.user_ns, **(local_ns or {})}
        try:
            if cell is not None:
                return self._train_cell(request, f"%%cnai {line}\n{cell}", namespace)
            return self._perform(request, namespace)
        except CnaiError:
            raise
        except Exception as error:
            if getattr(request, "debug", None):
                raise
            # The debug backend raises the target's own exception; without our frames %debug starts in the target.
            raise error.with_traceback(authors_part(error.__traceback__))  # noqa: B904

    def _perform(self, request: Namespace, namespace: dict[str, Any]) -> Any:
        from cnai.faces import verbs

        if request.verb == "logs" and request.follow:
            return self._follow_logs(request)
        with plain_warnings():
            outcome = verbs.perform(request, namespace)
        if isinstance(outcome, str) or request.verb not in {"train", "attach"}:
            return outcome
        controls = not getattr(request, "read_only", None)
        if request.wait:
            return self._wait(outcome, controls=controls)
        if not controls:
            self._show(outcome, controls=False)
        return outcome

    def _train_cell(self, request: Namespace, source: str, namespace: dict[str, Any]) -> Run:
        from cnai.faces import verbs

        if request.verb != "train":
            raise UsageError(
                f"%%cnai supports only train; given: {request.verb}; write %cnai {request.verb} on a line of its own"
            )
        try:
            with plain_warnings():
                run = verbs.train_cell(request, source, namespace, f"Cell [{self._shell.execution_count}]")
        except SyntaxError as error:
            raise UsageError("".join(traceback.format_exception_only(error)).rstrip()) from None
        if not (request.wait or request.returns):
            return run
        self._wait(run)
        if request.returns:
            self._shell.push(run.result())
        return run

    def _wait(self, run: Run, *, controls: bool = True) -> Run:
        """Show the run until it ends; an interrupt ends only the waiting, not the run."""
        from cnai.faces.follow import Detached, follow

        try:
            if self._in_notebook:
                self._show(run, controls=controls)
                run.wait()
            else:
                follow(run)
        except KeyboardInterrupt:
            raise Detached(run.id) from None
        if run.state is not State.SUCCEEDED:
            run.result()  # raises the run's error
        return run

    def _follow_logs(self, request: Namespace) -> None:
        from cnai.faces import verbs
        from cnai.faces.follow import Detached, follow_logs

        run = verbs.attach(request)
        try:
            follow_logs(run, rank=request.rank, tail=request.tail)
        except KeyboardInterrupt:
            raise Detached(run.id) from None

    def _show(self, run: Run, *, controls: bool) -> None:
        if self._in_notebook:
            from cnai.faces import widgets

            widgets.show(run, controls=controls, once=True)

    @property
    def _in_notebook(self) -> bool:
        return getattr(self._shell, "kernel", None) is not None
