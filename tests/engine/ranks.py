"""Real ranks for the tests: forked processes with gloo on loopback, each with a Link whose other end the test reads."""

import multiprocessing
import os
import socket
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch._dynamo  # the first optimizer of a process imports it: here once, for all ranks

from cnai.engine.link import GenerationEnd, Link, install
from cnai.engine.messages import Assignment, Events, FromRank, Stop
from cnai.engine.training import context as contexts
from cnai.events import Event, Kind
from cnai.spec import Interval

DEADLINE_SECONDS = 120
torch.set_num_threads(1)


@dataclass
class Rank:
    """What a rank did: `ended` is returned, generation-end or raised."""

    ended: str = "died"
    value: object = None
    events: list = field(default_factory=list)
    abilities: list = field(default_factory=list)

    def of(self, kind):
        return [event for event in self.events if event.kind is kind]


def launch(target, world_size, folder, *args, generation=0, resume=None, every="1000h", first=None, told=None):
    """Run `target(ctx, *args)` in ranks; `told(events so far)` names the ranks that are to hear that they must end."""
    fork = multiprocessing.get_context("fork")
    assignment = Assignment(
        run_id="test",
        generation=generation,
        run_dir=Path(folder),
        resume_from=Path(folder) / resume if resume else None,
        checkpoint_every=Interval.parse(every),
        timeout_seconds=60.0,
        first_world_size=first or world_size,
    )
    port, lines, processes = free_port(), [], []
    for rank in range(world_size):
        ours, theirs = fork.Pipe()
        back, answer = fork.Pipe(duplex=False)
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
        process = fork.Process(target=_rank, args=(place, assignment, theirs, answer, target, args))
        process.start()
        theirs.close()
        answer.close()
        lines.append((ours, back))
        processes.append(process)
    return _watch(lines, processes, told)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def metric(ranks, name):
    """Return {step: value} over all ranks' events; a step must be reported once."""
    found = [(e.step, e.payload[name]) for rank in ranks for e in rank.of(Kind.METRIC) if name in e.payload]
    assert len(dict(found)) == len(found), "a step was reported twice"
    return dict(sorted(found))


def checkpoints(ranks):
    return [event.payload["path"] for rank in ranks for event in rank.of(Kind.CHECKPOINT)]


def _rank(place, assignment, line, answer, target, args):
    os.environ.update({key: str(value) for key, value in place.items()})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"})
    # As real ranks do, before other threads exist: two threads that find the parent's pool after a fork abort torch.
    torch.set_num_threads(1)
    link = Link(assignment, place["RANK"], line)
    install(link)
    try:
        ended = ("returned", target(contexts.context(), *args))
        contexts.close()
    except GenerationEnd:
        ended = ("generation-end", None)
    except BaseException as error:
        contexts.abandon()
        ended = (f"raised {type(error).__name__}", f"{error}\n{traceback.format_exc()}")
    link.close()
    answer.send(ended)
    answer.close()
    os._exit(0)


def _watch(lines, processes, told):
    ranks, open_lines = [Rank() for _ in lines], {}
    for number, (line, back) in enumerate(lines):
        open_lines[line], open_lines[back] = number, number
    deadline, ordered = time.monotonic() + DEADLINE_SECONDS, set()
    try:
        while open_lines:
            assert time.monotonic() < deadline, "ranks did not end in time"
            for ready in multiprocessing.connection.wait(list(open_lines), timeout=1):
                _take(ready, ranks[open_lines[ready]], open_lines)
            for number in told([e for rank in ranks for e in rank.events]) if told else ():
                if number not in ordered:
                    ordered.add(number)
                    lines[number][0].send(Stop())
    finally:
        for process in processes:
            if time.monotonic() >= deadline:
                process.kill()
            process.join(10)
            process.kill()
    return ranks


def _take(ready, rank, open_lines):
    try:
        message = ready.recv()
    except (EOFError, OSError):
        del open_lines[ready]
        return
    if not isinstance(message, FromRank):
        rank.ended, rank.value = message
    elif isinstance(message.content, Events):
        rank.events += [Event.from_json(line) for line in message.content.text.splitlines()]
    else:
        rank.abilities.append(message.content)
