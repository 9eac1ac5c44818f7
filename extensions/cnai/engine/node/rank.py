"""Rank: runs the user's target in a rank's process."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnai.engine import capture, results
from cnai.engine.echoes import is_echo
from cnai.engine.link import GenerationEnd, Link, install
from cnai.engine.messages import Abilities
from cnai.engine.node import children
from cnai.engine.node.watchdog import end_with_parent
from cnai.engine.store import RunFolder, write
from cnai.events import Diagnosis

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from cnai.engine.messages import Order

ECHO_SECONDS = 0.3
"""A rank that lost a peer waits this long: the agent reports one failed rank, and must notice the peer first."""


def main(order: Order, ups: list[Connection]) -> None:
    """Run the target in this process; torch's agent calls it in each forked rank with the torchrun environment set."""
    end_with_parent()
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    folder = RunFolder(order.assignment.run_dir)
    _own_process(folder.log_file(order.assignment.generation, rank), order)
    for other, up in enumerate(ups):
        if other != local_rank:
            up.close()
    link = Link(order.assignment, rank, ups[local_rank])
    install(link)
    link.announce(Abilities(pid=os.getpid()))
    children.expect(folder)
    try:
        value = _run(folder, order.assignment.timeout_seconds)
    except GenerationEnd:
        link.say("ended")
    except SystemExit as leave:
        _publish_reports()
        _leave(link, leave)
    except BaseException as error:  # noqa: BLE001  any exception of the target is the run's diagnosis
        found = diagnosis(error, debug=order.debug)
        _publish_reports()
        link.emit(found)
        link.close()
        if is_echo(found.summary):
            time.sleep(ECHO_SECONDS)
        _exit(1)
    else:
        if rank == 0:
            write(folder.path / f"result-gen-{order.assignment.generation}", results.pack(value))
        link.say("finished")
    _tidy_up()
    link.close()


def _run(folder: RunFolder, timeout_seconds: float | None) -> Any:
    from cnai.engine.training.group import limited

    with limited(timeout_seconds):
        return capture.load_run(folder)()


def _publish_reports() -> None:
    """Publish the reports of steps that are not exchanged yet."""
    from cnai.engine.training import context

    with contextlib.suppress(Exception):  # reading them from a GPU fails with the error that ended the target
        context.abandon()


def _leave(link: Link, leave: SystemExit) -> None:
    """Treat `sys.exit()` as a script's normal end and `sys.exit(3)` or `sys.exit("text")` as its failure."""
    if leave.code in {None, 0}:
        link.say("finished")
        return
    link.emit(Diagnosis(summary=f"the target called sys.exit({leave.code!r})", error="SystemExit"))
    link.close()
    _exit(leave.code if isinstance(leave.code, int) else 1)


def _exit(code: int) -> None:
    """Exit immediately: after a failure, exit handlers and open process groups could block the rank."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF or 1)


def _own_process(log: Path, order: Order) -> None:
    """Undo what the fork inherited from the agent: signal handlers, standard streams, random state, thread count."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    log.parent.mkdir(parents=True, exist_ok=True)
    output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, fd in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, fd)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", 0, closefd=False), encoding="utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", 0, closefd=False), encoding="utf-8", write_through=True)
    faulthandler.enable(sys.stderr)
    faulthandler.register(signal.SIGUSR1, sys.stderr)  # the supervisor requests the stacks of a stalled rank
    if Path(order.cwd).is_dir():
        os.chdir(order.cwd)
    _seed_and_threads()


def _seed_and_threads() -> None:
    import numpy as np
    import torch

    # Forked ranks inherit the states of these two; `random` seeds itself, and CUDA's generators start in the rank.
    np.random.seed()
    torch.default_generator.seed()
    with contextlib.suppress(ValueError):  # a list for nested regions, or none
        torch.set_num_threads(max(1, int(os.environ["OMP_NUM_THREADS"].partition(",")[0])))


def _tidy_up() -> None:
    import torch.distributed as dist

    from cnai.engine.training import context

    context.close()
    if dist.is_initialized():
        with contextlib.suppress(Exception):  # a peer that ended first is no failure of this rank
            dist.destroy_process_group()


def diagnosis(error: BaseException, *, debug: bool) -> Diagnosis:
    """Describe an exception of the target: one line, and the user's own lines of the traceback."""
    text, name = str(error).strip(), type(error).__name__
    return Diagnosis(
        summary=f"{name}: {text}" if text else name,
        error=name,
        traceback=capture.user_traceback(error, debug=debug),
        at=time.time(),
    )
