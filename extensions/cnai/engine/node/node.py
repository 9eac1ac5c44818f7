"""Node: preload of each Dask worker. Keeps a warm forkserver and turns an Order into an agent and its ranks.

The worker itself never imports torch, so that it starts faster and no rank can hold its GIL.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import shutil
import signal
import time
from multiprocessing import connection, util
from typing import TYPE_CHECKING, Any

from cnai.engine.link import BATCH_SECONDS
from cnai.engine.messages import (
    Abilities,
    Announced,
    End,
    Ended,
    Events,
    FromNode,
    FromRank,
    Leaving,
    Outcome,
    Report,
    Started,
    Stop,
    message_of,
    plain,
)
from cnai.engine.node import agent, descendants
from cnai.engine.node.preload import warm_up
from cnai.engine.node.tail import Tail
from cnai.engine.store import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from distributed import Worker

    from cnai.engine.messages import Dump, Ending, LastWord, Order

UP = "cnai-up"
"""Dask topic from nodes to the supervisor."""
DRAIN_SECONDS = 5.0

_running: dict[tuple[str, int], NodeGeneration] = {}
_ended_early: set[tuple[str, int]] = set()
"""Generations that were asked to end before they started here."""
_leaving = False


def leave() -> None:
    """End this process immediately, without joining threads that wait for agents; the agents end with it."""
    shutil.rmtree(util.get_temp_dir(), ignore_errors=True)  # the forkserver's socket
    os._exit(0)


async def depart(worker: Worker, seconds: float) -> None:
    """Leave with as little loss as possible: let the ranks end at a step boundary, then close the worker."""
    global _leaving
    _leaving = True
    worker.log_event(UP, plain(Leaving(node=worker.address)))
    deadline = time.monotonic() + seconds
    # Dask forgets the worker's tasks when the supervisor has their reports.
    while (_running or worker.state.tasks) and time.monotonic() < deadline:
        await asyncio.sleep(BATCH_SECONDS)
    await worker.close(executor_wait=False, reason="asked to leave")


def dask_setup(worker: Any) -> None:
    """Turn a Dask worker into a node."""
    descendants.adopt()
    warm_up()
    worker.handlers.update(cnai_tell=tell, cnai_port=port, cnai_about=about)


def run_agent(order: Order) -> Report:
    """Run one node's share of a generation to its end; a Dask task."""
    from distributed import get_worker

    worker, key = get_worker(), (order.assignment.run_id, order.assignment.generation)
    if key in _ended_early or _leaving:
        return Report(node_rank=order.node_rank, error="canceled before it started")
    generation = NodeGeneration(order, lambda message: worker.log_event(UP, plain(message)))
    _running[key] = generation
    try:
        return generation.run()
    finally:
        del _running[key]


async def tell(message: object) -> None:
    """Handle the supervisor's message about a generation on this node, given as plain data."""
    request: End | Dump = message_of(message)
    key = request.run_id, request.generation
    running = _running.get(key)
    if isinstance(request, End):
        if running is None:
            _ended_early.add(key)
        else:
            running.end(request.how)
    elif running is not None:
        running.signal_ranks(signal.SIGUSR1)


async def about() -> dict[str, float]:
    """Return this node's pid and its own memory, without its ranks', in MiB."""
    import psutil

    return {"pid": os.getpid(), "memory_mib": round(psutil.Process().memory_info().rss / 2**20, 1)}


async def port(host: str) -> int:
    """Return a free port for a rendezvous on this node."""
    return agent.free_port(host)


class NodeGeneration:
    """One node's share of a generation: the agent's process, the lines from its ranks, and their logs."""

    def __init__(self, order: Order, publish: Callable[[FromNode], None]) -> None:
        self.order, self._publish = order, publish
        self._pids: dict[int, int] = {}
        self._said: dict[int, LastWord] = {}
        folder, assignment = RunFolder(order.assignment.run_dir), order.assignment
        self._tails = [
            Tail(folder.log_file(assignment.generation, rank), assignment.run_id, assignment.generation, rank)
            for rank in range(order.first_rank, order.first_rank + order.ranks)
        ]
        context = multiprocessing.get_context("forkserver")
        pipes = [context.Pipe() for _ in range(order.ranks)]
        self._downs: list[Connection] = [down for down, _ in pipes]
        self._outcome, outcome = context.Pipe(duplex=False)
        ups = [up for _, up in pipes]
        self._agent = context.Process(target=agent.main, args=(order, ups, outcome), name=f"cnai-{assignment.run_id}")
        self._agent.start()
        for theirs in (*ups, outcome):
            theirs.close()  # otherwise the node would see no EOF when the last rank ends

    def run(self) -> Report:
        """Relay messages until the agent and its ranks have ended; return the report."""
        assert self._agent.pid is not None
        self._tell(Started(agent_pid=self._agent.pid))
        outcome: Outcome | None = None
        while self._agent.is_alive():
            ready = connection.wait([*self._downs, self._outcome, self._agent.sentinel], timeout=BATCH_SECONDS)
            self._relay([down for down in self._downs if down in ready])
            if self._outcome in ready:
                try:
                    outcome = self._outcome.recv()
                except EOFError:
                    break
        self._agent.join()
        self._drain()
        self._outcome.close()
        shutil.rmtree(agent.scratch(self.order), ignore_errors=True)
        if outcome is None:
            outcome = Outcome(error=f"the agent's process died with exit code {self._agent.exitcode}")
            descendants.end(chosen=_is_of_ranks)
        if not outcome.failed:
            for rank in range(self.order.first_rank, self.order.first_rank + self.order.ranks):
                self._said.setdefault(rank, "finished")
        return Report(node_rank=self.order.node_rank, said=self._said, failures=outcome.failures, error=outcome.error)

    def end(self, how: Ending) -> None:
        """End the ranks: ask them over their lines, or send their agent a signal."""
        if how == "graceful":
            for down in self._downs:
                with contextlib.suppress(OSError):  # this rank has already ended
                    down.send(Stop())
        elif self._agent.is_alive():
            self._agent.kill() if how == "kill" else self._agent.terminate()

    def signal_ranks(self, number: signal.Signals) -> None:
        """Send a signal to each rank."""
        for pid in self._pids.values():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def _relay(self, downs: list[Connection]) -> None:
        for down in downs:
            try:
                message: FromRank = down.recv()
            except (EOFError, OSError):
                self._downs.remove(down)
                down.close()
                continue
            self._handle(message)
        for tail in self._tails:
            if text := tail.read():
                self._tell(Events(text=text))

    def _handle(self, message: FromRank) -> None:
        rank, content = message.rank, message.content
        if isinstance(content, Events):
            self._tell(content)
        elif isinstance(content, Ended):
            self._said[rank] = "ended"
        else:
            self._note(rank, content)

    def _note(self, rank: int, abilities: Abilities) -> None:
        if abilities.pid is not None:
            self._pids[rank] = abilities.pid
        self._tell(Announced(rank=rank, abilities=abilities))

    def _tell(self, content: Started | Announced | Events) -> None:
        assignment = self.order.assignment
        self._publish(
            FromNode(
                run_id=assignment.run_id,
                generation=assignment.generation,
                node_rank=self.order.node_rank,
                content=content,
            )
        )

    def _drain(self) -> None:
        """Read the ranks' remaining messages, for at most 5 s: a grandchild may hold a line open."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._downs and time.monotonic() < deadline:
            ready = connection.wait(self._downs, timeout=BATCH_SECONDS)
            self._relay([down for down in self._downs if down in ready])
        for down in self._downs:
            down.close()
        for tail in self._tails:
            if text := tail.finish():
                self._tell(Events(text=text))


def _is_of_ranks(pid: int) -> bool:
    """Tell whether a child of this process is a rank, or something a rank started, whose agent was killed."""
    return os.getsid(pid) != os.getsid(0)
