"""Debug backend: rank 0 in this process, so that breakpoints, `%debug` and print work; no engine, no other ranks."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from multiprocessing import Pipe
from typing import TYPE_CHECKING, Any

from cnai.engine import rank
from cnai.engine.agent import free_port
from cnai.engine.link import Assignment, Link, install
from cnai.engine.store import Journal
from cnai.errors import EngineError, UsageError
from cnai.events import Event, Kind, State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from cnai.engine.capture import Captured
    from cnai.engine.client import EngineClient
    from cnai.engine.store import RunFolder, Store
    from cnai.spec import RunSpec

HOST = "127.0.0.1"


def check(spec: RunSpec) -> dict[str, Any]:
    """Refuse more than one rank."""
    if spec.ranks.maximum != 1:
        raise UsageError(f"the debug backend has 1 rank, in this process; given: --ranks {spec.ranks}")
    return {"cpu": None, "gpus": None}


def connect() -> EngineClient:
    """Refuse: a debug run is over when `train` returns."""
    raise EngineError("a debug run has no engine; it ended with the call that started it")


def stop() -> bool:
    """Tell that there is nothing to stop."""
    return False


def run(store: Store, spec: RunSpec, record: dict[str, Any], captured: Captured) -> RunFolder:
    """Run the target here and now. Its exception is raised as it is, for `%debug`."""
    folder = store.create(spec, record, captured.payload, captured.code_zip)
    scribe = _Scribe(folder)
    scribe.note(Kind.GENERATION, {"ranks": 1, "from_step": 0})
    scribe.become(State.RUNNING)
    try:
        with _as_rank(folder, spec, scribe):
            from cnai.engine.capture import load

            value = load(captured.payload, folder.code_dir())()
    except BaseException as error:
        told = rank.diagnosis(error, debug=True)
        scribe.note(Kind.DIAGNOSIS, {**told, "final": True}, rank=0)
        scribe.become(State.FAILED, told["summary"])
        raise
    else:
        folder.result.write_bytes(rank.pack_result(value))
        scribe.become(State.SUCCEEDED)
    finally:
        scribe.close()
    return folder


@contextmanager
def _as_rank(folder: RunFolder, spec: RunSpec, scribe: _Scribe) -> Iterator[None]:
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
    reader = threading.Thread(target=scribe.take, args=(down,), name="cnai-debug", daemon=True)
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


class _Scribe:
    """Writes a debug run's journal and state."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._journal = Journal(folder)

    def take(self, down: Connection) -> None:
        """Write what the rank says until it hangs up."""
        while True:
            try:
                word, _, content = down.recv()
            except (EOFError, OSError):
                return
            if word == "events":
                self._journal.append(content)

    def note(self, kind: Kind, payload: dict[str, Any], rank: int | None = None) -> None:
        """Write an event of the run itself."""
        event = Event(run_id=self._folder.run_id, generation=0, kind=kind, time=time.time(), rank=rank, payload=payload)
        self._journal.append(event.to_json() + "\n")

    def become(self, state: State, reason: str = "") -> None:
        """Write a new state."""
        self.note(Kind.STATE, {"state": state, "reason": reason})
        self._folder.write_status(state=state, reason=reason, generation=0, world_size=1, engine="")

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()
