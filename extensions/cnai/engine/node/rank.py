"""Rank: runs the user's target in a rank's process."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from cnai.engine import capture, results
from cnai.engine.echoes import is_echo
from cnai.engine.link import GenerationEnd, Link, install
from cnai.engine.messages import Abilities
from cnai.engine.node import children, ending, inherited
from cnai.engine.node.watchdog import end_with_parent
from cnai.engine.store import RunFolder, write
from cnai.events import Diagnosis

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from cnai.engine.messages import Order

ECHO_SECONDS = 0.3
"""A rank that lost a peer waits this long: the agent reports one failed rank, and must notice the peer first."""


def main(order: Order, ups: list[Connection]) -> NoReturn:
    """Run the target in this process; torch's agent calls it in each forked rank with the torchrun environment set."""
    watched = end_with_parent()
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    folder = RunFolder(order.assignment.run_dir)
    for other, up in enumerate(ups):
        if other != local_rank:
            up.close()
    log = folder.log_file(order.assignment.generation, rank)
    inherited.drop(log, order.cwd, {watched, ups[local_rank].fileno()})
    link = Link(order.assignment, rank, ups[local_rank])
    install(link)
    link.announce(Abilities(pid=os.getpid()))
    children.expect(folder)
    code = 1
    try:
        code = _program(order, folder, link)
    finally:
        os._exit(code)


def _program(order: Order, folder: RunFolder, link: Link) -> int:
    """Run the target to its end, as Python runs a program; return the exit code."""
    pid, libraries = os.getpid(), set(sys.modules)
    code = _target(order, folder, link, pid)
    if os.getpid() != pid:  # a child that the target forked, and that returned from it
        ending.run_handlers()
        ending.destroy_program(libraries)
        return code
    link.flush()  # an exit handler may end the process
    ending.run_handlers()
    if code == 0:
        _leave_group()
    ending.destroy_program(libraries)
    link.close()
    return code


def _target(order: Order, folder: RunFolder, link: Link, pid: int) -> int:
    try:
        value = _run(folder, order.assignment.timeout_seconds)
        if os.getpid() == pid:
            if link.rank == 0:
                write(folder.path / f"result-gen-{order.assignment.generation}", results.pack(value))
            _finish_context()
    except BaseException as error:  # noqa: BLE001  any exception of the target is the run's diagnosis
        of_rank = os.getpid() == pid
        if not isinstance(error, (GenerationEnd, SystemExit)):
            _show(error, of_rank=of_rank)
        return _code(error, order, link) if of_rank else _code_of_child(error)
    return 0


def _run(folder: RunFolder, timeout_seconds: float | None) -> Any:
    from cnai.engine.training.group import limited

    with limited(timeout_seconds):
        return capture.load_run(folder, lasting=True)()


def _show(error: BaseException, *, of_rank: bool) -> None:
    """Call the exception hook; the diagnosis replaces Python's own hook in a rank."""
    if not of_rank or sys.excepthook is not sys.__excepthook__:
        with contextlib.suppress(Exception):
            sys.excepthook(type(error), error, error.__traceback__)


def _code(error: BaseException, order: Order, link: Link) -> int:
    """Report what ended the target; return the exit code."""
    if isinstance(error, GenerationEnd):
        _finish_context()
        link.end()
        return 0
    _publish_reports()
    if isinstance(error, SystemExit):
        code = ending.exit_code(error)
        if code:
            link.emit(Diagnosis(summary=f"the target called sys.exit({error.code!r})", error="SystemExit"))
        else:
            _finish_context()
        return code
    found = diagnosis(error, debug=order.debug)
    link.emit(found)
    if is_echo(found.summary):
        link.flush()
        time.sleep(ECHO_SECONDS)
    return 1


def _code_of_child(error: BaseException) -> int:
    return ending.exit_code(error) if isinstance(error, SystemExit) else 1


def _publish_reports() -> None:
    """Publish the reports of steps that are not exchanged yet."""
    from cnai.engine.training import context

    with contextlib.suppress(Exception):  # reading them from a GPU fails with the error that ended the target
        context.abandon()


def _finish_context() -> None:
    from cnai.engine.training import context

    context.close()


def _leave_group() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        with contextlib.suppress(Exception):  # a peer that ended first is no failure of this rank
            dist.destroy_process_group()


def diagnosis(error: BaseException, *, debug: bool) -> Diagnosis:
    """Describe an exception of the target: one line, and the user's own lines of the traceback."""
    name = type(error).__name__
    try:
        text = str(error).strip()
    except Exception:  # noqa: BLE001 # the author's __str__; Python's tracebacks say the same
        text = "<exception str() failed>"
    return Diagnosis(
        summary=f"{name}: {text}" if text else name,
        error=name,
        traceback=capture.user_traceback(error, debug=debug),
        at=time.time(),
    )
