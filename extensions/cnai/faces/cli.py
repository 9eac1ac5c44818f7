"""The `cnai` command: the grammar in a shell. Exit codes: 0 success, 1 failure, 2 usage error, 130 interrupted."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

from cnai.errors import CnaiError, UsageError
from cnai.grammar import HelpAsked, build, parse

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a C locale can't encode curves and dots
    try:
        code = _answer(sys.argv[1:] if words is None else words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, such as `head`, closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _answer(words: Sequence[str]) -> int:
    try:
        return _run(parse(words))
    except HelpAsked as asked:
        print(asked)
        return 0
    except CnaiError as error:
        if "--debug" in words:
            traceback.print_exc()
        return _say(error, USAGE if isinstance(error, UsageError) else FAILED)
    except KeyboardInterrupt as interrupt:
        return _say(interrupt, INTERRUPTED)


def _run(request: Namespace) -> int:
    from cnai.faces import verbs
    from cnai.faces.follow import follow_logs
    from cnai.faces.own import plain_warnings

    if request.verb == "logs" and request.follow:
        follow_logs(verbs.attach(request), rank=request.rank, tail=request.tail)
        return 0
    with plain_warnings():
        outcome = verbs.perform(request, None)
    if request.verb in {"train", "attach"} and not isinstance(outcome, str):
        return _follow(outcome)
    print(outcome if request.verb == "logs" else _for_shell(outcome))
    return FAILED if request.verb == "doctor" and not outcome.ok else 0


def _follow(run: Any) -> int:
    from cnai.events import State
    from cnai.faces.follow import Detached, follow

    try:
        follow(run)
    except KeyboardInterrupt:
        raise Detached(run.id) from None
    if run.error is not None:
        return _say(run.error, FAILED)
    return 0 if run.state is State.SUCCEEDED else FAILED


def _say(error: BaseException, code: int) -> int:
    print(_for_shell(error), file=sys.stderr)
    return code


def _for_shell(text: object) -> str:
    """Replace the magics in a text with the shell's `cnai`."""
    return str(text).replace("%%cnai", "cnai").replace("%cnai", "cnai")


def _complete() -> None:
    import argcomplete

    from cnai.faces.completion import equip

    argcomplete.autocomplete(equip(build()))


if __name__ == "__main__":
    sys.exit(main())
