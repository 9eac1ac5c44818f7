"""Debug backend: rank 0 in this process, so that breakpoints, `%debug` and print work; no engine, no other ranks."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import Pipe
from typing import TYPE_CHECKING

from cnai.backends.engines import Engines
from cnai.engine import results
from cnai.engine.link import Link, install
from cnai.engine.messages import Assignment
from cnai.engine.node import rank
from cnai.engine.node.agent import free_port
from cnai.engine.records import Room
from cnai.engine.scribe import Scribe
from cnai.errors import EngineError, UsageError
from cnai.events import NewGeneration, State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from cnai.backends.backend import Draft
    from cnai.backends.line import Line, Listener
    from cnai.engine.store import RunFolder
    from cnai.spec import RunSpec

HOST = "127.0.0.1"


class DebugBackend:
    """Runs rank 0 in the calling thread; a run has ended when `begin` returns."""

    def check(self, spec: RunSpec) -> Room:
        """Refuse more than one rank."""
        if spec.ranks.maximum != 1:
            raise UsageError(f"the debug backend has 1 rank, in this process; given: --ranks {spec.ranks}")
        return Room()

    def preview(self, _: Room) -> None:
        """Return nothing: there are no nodes."""

    def begin(self, draft: Draft) -> RunFolder:
        """Run the target. Raises the target's own exception, for `%debug`."""
        return _run(draft)

    def line(self, folder: RunFolder, listener: Listener) -> Line:  # noqa: ARG002 - nothing is heard
        """Return a line that refuses every request."""
        return NoLine()

    def prepare(self) -> None:
        """Do nothing: the run uses this process."""

    def start(self, flavor: str | None = None, nodes: int | None = None) -> Engines:  # noqa: ARG002
        """Start nothing: there is no engine."""
        return Engines()

    def status(self) -> Engines:
        """Return nothing: there is no engine."""
        return Engines()

    def stop(self, flavor: str | None = None) -> bool:  # noqa: ARG002
        """Return False: there is no engine to stop."""
        return False


class NoLine:
    """The line of a run that has no engine; other processes can read its journal."""

    def open(self, *, revive: bool = True) -> None:  # noqa: ARG002
        """Refuse."""
        raise _no_engine()

    def wish(self, verb: str, value: int | None = None) -> None:  # noqa: ARG002
        """Refuse."""
        raise _no_engine()

    def check(self) -> None:
        """Do nothing: there is no engine to lose."""


def _no_engine() -> EngineError:
    return EngineError("a debug run has no engine; it ended with the call that started it")


def _run(draft: Draft) -> RunFolder:
    folder, spec = draft.write(), draft.spec
    scribe = Scribe(folder)
    scribe.note(NewGeneration(ranks=1, from_step=0))
    scribe.become(State.RUNNING, world_size=1)
    try:
        with _as_rank(folder, spec, scribe):
            from cnai.engine.capture import load_run
            from cnai.engine.training.group import limited

            with limited(spec.timeout_seconds):
                value = load_run(folder)()
    except BaseException as error:
        found = rank.diagnosis(error, debug=True)
        scribe.note(replace(found, final=True), rank=0)
        scribe.become(State.FAILED, found.summary)
        raise
    else:
        folder.result.write_bytes(results.pack(value))
        scribe.become(State.SUCCEEDED)
    finally:
        scribe.close()
    return folder


@contextmanager
def _as_rank(folder: RunFolder, spec: RunSpec, scribe: Scribe) -> Iterator[None]:
    """Make this process rank 0 of 1: set up environment, link and process group, and undo all of it afterwards."""
    variables = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(free_port(HOST)),
        **spec.env,
    }
    before = {key: os.environ.get(key) for key in variables}
    os.environ.update(variables)
    down, up = Pipe()
    assignment = Assignment(
        run_id=folder.run_id,
        generation=0,
        run_dir=folder.path,
        resume_from=None,
        checkpoint_every=spec.checkpoint_every,
        timeout_seconds=spec.timeout_seconds,
        first_world_size=1,
    )
    link = Link(assignment, 0, up)
    install(link)
    reader = threading.Thread(target=scribe.listen, args=(down,), name="cnai-debug", daemon=True)
    reader.start()
    try:
        yield
    finally:
        _leave_process_group()
        install(None)
        link.close()
        _hang_up(up)
        reader.join(timeout=10)
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _hang_up(line: Connection) -> None:
    """Close a line that a thread is reading: after close(2) alone the other end notices only when that read returns."""
    with socket.fromfd(line.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as end:
        end.shutdown(socket.SHUT_RDWR)
    line.close()


def _leave_process_group() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
