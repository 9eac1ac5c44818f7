"""Debug backend: rank 0 in this process, so that breakpoints, `%debug` and print work; no engine, no other ranks."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from multiprocessing import Pipe
from typing import TYPE_CHECKING, Any

from cnai.engine import results
from cnai.engine.link import Link, install
from cnai.engine.messages import Assignment
from cnai.engine.node import rank
from cnai.engine.node.agent import free_port
from cnai.engine.records import Record, Room
from cnai.engine.scribe import Scribe
from cnai.errors import EngineError, UsageError
from cnai.events import NewGeneration, State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from cnai.engine.capture import Captured
    from cnai.engine.control.client import EngineClient
    from cnai.engine.store import RunFolder, Store
    from cnai.spec import RunSpec

self_healing = False
HOST = "127.0.0.1"


def check(spec: RunSpec) -> Room:
    """Refuse more than one rank."""
    if spec.ranks.maximum != 1:
        raise UsageError(f"the debug backend has 1 rank, in this process; given: --ranks {spec.ranks}")
    return Room()


def claim(_: Room) -> AbstractContextManager[str]:
    """Hold no name: there is no engine."""
    return nullcontext("")


def connect(_: str = "") -> EngineClient:
    """Refuse: a debug run is over when `train` returns."""
    raise EngineError("a debug run has no engine; it ended with the call that started it")


def prepare() -> None:
    """Do nothing: the run comes into this process."""


def start(flavor: str | None = None, nodes: int | None = None) -> dict[str, Any]:  # noqa: ARG001
    """Return nothing: there is no engine."""
    return {}


def status() -> dict[str, Any]:
    """Return nothing: there is no engine."""
    return {}


def stop(flavor: str | None = None) -> bool:  # noqa: ARG001
    """Tell that there is nothing to stop."""
    return False


def run(store: Store, spec: RunSpec, record: Record, captured: Captured) -> RunFolder:
    """Run the target here and now. Its exception is raised as it is, for `%debug`."""
    folder = store.create(spec, record, captured.payload, captured.code_zip)
    scribe = Scribe(folder)
    scribe.note(NewGeneration(ranks=1, from_step=0))
    scribe.become(State.RUNNING, world_size=1)
    try:
        with _as_rank(folder, spec, scribe):
            from cnai.engine.capture import load_run

            value = load_run(folder)()
    except BaseException as error:
        told = rank.diagnosis(error, debug=True)
        scribe.note(replace(told, final=True), rank=0)
        scribe.become(State.FAILED, told.summary)
        raise
    else:
        folder.result.write_bytes(results.pack(value))
        scribe.become(State.SUCCEEDED)
    finally:
        scribe.close()
    return folder


@contextmanager
def _as_rank(folder: RunFolder, spec: RunSpec, scribe: Scribe) -> Iterator[None]:
    """Be rank 0 of 1: environment, link and process group, all taken back afterwards."""
    mine = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(free_port(HOST)),
        **spec.env,
    }
    before = {key: os.environ.get(key) for key in mine}
    os.environ.update(mine)
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
        up.close()
        reader.join(timeout=10)
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _leave_process_group() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
