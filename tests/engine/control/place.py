"""A place for runs without Dask and processes: nodes and ranks do what a test says, or end when they are told to.

What nodes say goes through msgpack, with what Dask adds to it.
"""

import asyncio
import os
from pathlib import Path

import msgpack

from cnai.engine.commands import Wish
from cnai.engine.control.cluster import NodeLost
from cnai.engine.control.supervisor import Supervisor
from cnai.engine.messages import (
    Abilities,
    Announced,
    Dump,
    End,
    Events,
    Failure,
    FromNode,
    Leaving,
    Report,
    Started,
    plain,
)
from cnai.engine.node.node import UP
from cnai.engine.records import Record, Room
from cnai.engine.store import Store
from cnai.events import Checkpoint, Diagnosis, Event, Kind, State
from cnai.paths import store_root
from cnai.spec import Ranks, RunSpec, Target

LONG_SECONDS = 500
STEPS_SECONDS = 0.1


class Agent:
    """`manners` say how its ranks end: polite at a step boundary, deaf to that, stubborn also to SIGTERM.

    Courteous ranks are deaf, too, and return upon SIGTERM as if all was done.
    """

    def __init__(self, node, order):
        self.node, self.order, self.manners = node, order, node.manners
        self.told, self.begun, self.cancelled = [], False, False
        self._report = asyncio.get_running_loop().create_future()

    @property
    def done(self):
        return self._report.done()

    @property
    def ranks(self):
        return range(self.order.first_rank, self.order.first_rank + self.order.ranks)

    async def report(self):
        return await asyncio.shield(self._report)

    async def cancel(self):
        self.cancelled = True
        if not self.begun or not self.node.there:
            why = "canceled before it started on node" if self.node.there else "node"
            lost = "" if self.node.there else " was lost"
            self.end(error=f"{why} {self.order.node_rank}{lost}")

    # What tests do.

    def begin(self):
        if not self.begun and not self.done:
            self.begun = True
            self.say(Started(agent_pid=1))

    def say(self, content):
        place = self.order.assignment
        self.node.say(
            FromNode(run_id=place.run_id, generation=place.generation, node_rank=self.order.node_rank, content=content)
        )

    def announce(self, **abilities):
        for rank in self.ranks:
            self.say(Announced(rank=rank, abilities=Abilities(**abilities)))

    def tell(self, said, rank=0, step=None):
        place = self.order.assignment
        self.say(Events(text=Event.now(said, place.run_id, place.generation, rank, step).to_json() + "\n"))

    def checkpoint(self, step):
        path = f"checkpoints/gen-{self.order.assignment.generation}/step-{step}"
        (self.order.assignment.run_dir / path).mkdir(parents=True, exist_ok=True)
        self.tell(Checkpoint(path=path), step=step)

    def end(self, how="finished", **report):
        if not self.done:
            said = {} if report else dict.fromkeys(self.ranks, how)
            self._report.set_result(Report(node_rank=self.order.node_rank, said=said, **report))
            self.node.next()

    def kill(self, rank=None, code=-9):
        rank = self.ranks[0] if rank is None else rank
        self.end(failures=(Failure(rank=rank, exit_code=code, time=self.node.world.clock.now),))

    def crash(self, summary, rank=0):
        name = summary.partition(":")[0]
        at = self.node.world.clock.now
        self.tell(Diagnosis(summary=summary, error=name, traceback="line 1", at=at), rank)
        self.kill(rank, 1)

    def hear(self, message):
        self.told.append(message.how if isinstance(message, End) else "dump")
        if isinstance(message, Dump):
            return
        if message.how == "graceful" and self.manners == "polite":
            self.end("ended")
        elif message.how == "terminate" and self.manners == "courteous":
            self.end()
        elif message.how == "terminate" and self.manners != "stubborn":
            self.end(error="SignalException: Process 1 got signal: 15")
        elif message.how == "kill":
            self.end(error="the agent's process died with exit code -9")


class Node:
    def __init__(self, world, number, slots, manners):
        self.world, self.slots, self.manners = world, slots, manners
        self.host = f"10.0.0.{number}"
        self.address, self.name = f"tls://{self.host}:1", f"node-{number}/pod"
        self.there, self.open = True, True
        self.agents = []
        self.deaf = False
        """Nothing arrives any more, but nobody has noticed yet."""

    @property
    def load(self):
        return len([agent for agent in self.agents if not agent.done])

    def _reach(self):
        if not self.there or self.deaf:
            raise NodeLost(f"{self.address} is gone")

    async def free_port(self):
        self._reach()
        return 4242

    async def start(self, order):
        agent = Agent(self, order)
        self.agents.append(agent)
        asyncio.get_running_loop().call_soon(self.next)
        return agent

    def next(self):
        for agent in self.agents:
            begun = [each for each in self.agents if each.begun and not each.done]
            if not agent.begun and len(begun) < self.slots and self.there:
                agent.begin()

    async def tell(self, message):
        self._reach()
        for agent in self.agents:
            place = agent.order.assignment
            if agent.begun and (place.run_id, place.generation) == (message.run_id, message.generation):
                agent.hear(message)

    async def about(self):
        self._reach()
        return {"address": self.address, "pid": 1, "memory_mib": 1.0}

    def say(self, message):
        data = msgpack.unpackb(msgpack.packb(plain(message)))
        self.world.supervisor.log_event(UP, {**data, "worker": self.address})

    def leave(self):
        self.say(Leaving(node=self.address))

    def lose(self):
        """Be gone; Dask fails what was running at once."""
        self.there = False
        self.world.there.remove(self)
        for agent in self.agents:
            if agent.begun:
                agent.end(error=f"node {agent.order.node_rank} was lost")


class Run:
    def __init__(self, world, folder):
        self.world, self.folder, self.id = world, folder, folder.run_id

    @property
    def status(self):
        return self.folder.status()

    @property
    def state(self):
        return self.status.state

    @property
    def generations(self):
        return [e.payload["ranks"] for e in self.folder.events() if e.kind is Kind.GENERATION]

    @property
    def states(self):
        return [e.payload["state"] for e in self.folder.events() if e.kind is Kind.STATE]

    @property
    def reasons(self):
        return [e.payload["reason"] for e in self.folder.events() if e.kind is Kind.STATE]

    @property
    def failure(self):
        (last,) = [e for e in self.folder.events() if e.payload.get("final")]
        return last

    @property
    def agents(self):
        """Those of the present generation, by rank of their node."""
        mine = [
            agent
            for node in self.world.nodes
            for agent in node.agents
            if agent.order.assignment.run_id == self.id
            and agent.order.assignment.generation == len(self.generations) - 1
        ]
        return sorted(mine, key=lambda agent: agent.order.node_rank)

    @property
    def agent(self):
        return self.agents[0]

    async def becomes(self, state, generation=None):
        def there():
            return self.state is state and generation in {None, len(self.generations) - 1}

        await self.world.until(there, self)
        return self

    async def running(self, generation=0, *, steps=True):
        """Wait for a generation's ranks, whose code then reaches its steps."""
        await self.becomes(State.RUNNING, generation)
        for agent in self.agents if steps else ():
            agent.announce(graceful=True, max_ranks=4)
        return self

    async def wish(self, verb, ranks=None, *, only_ask=False):
        wish = msgpack.unpackb(msgpack.packb(plain(Wish(verb, ranks))))
        return (await self.world.supervisor.wish(self.id, wish, only_ask)).get("refused")

    def finish(self):
        for agent in self.agents:
            agent.end()

    def __repr__(self):
        return f"{self.status}, {self.states}"


class World:
    """All that an engine sees."""

    def __init__(self, clock):
        self.clock = clock
        self.store = Store(store_root())
        self.nodes, self.there = [], []
        self.heard = []
        self.begin()

    def begin(self):
        """Have a new scheduler; the one before is gone."""
        self.supervisor = Supervisor(_Place(self), "local", [self])

    def take(self, run_id, position, text):
        self.heard.append((run_id, position, text))

    def node(self, slots=8, manners="polite"):
        made = Node(self, len(self.nodes) + 1, slots, manners)
        self.nodes.append(made)
        self.there.append(made)
        return made

    def create(self, ranks=1, *, name="fit", engine="local", room=None, **spec):
        what = RunSpec(target=Target("function", "fit"), ranks=Ranks.parse(ranks), name=name, **spec)
        return Run(self, self.store.create(what, Record(engine=engine, room=room or Room()), b"payload", b""))

    async def submit(self, ranks=1, **spec):
        if not self.supervisor._recovered.is_set():
            await self.supervisor.recover()
        run = self.create(ranks, **spec)
        assert await self.supervisor.submit(run.id, str(self.store.root)) == {}
        return run

    async def until(self, condition, what=""):
        deadline = self.clock.now + LONG_SECONDS
        while not condition():
            assert self.clock.now < deadline, what
            await asyncio.sleep(STEPS_SECONDS)

    async def pass_by(self, seconds):
        await asyncio.sleep(seconds)

    def open_journals(self):
        found = []
        for fd in Path("/proc/self/fd").iterdir():
            try:
                path = os.readlink(fd)
            except OSError:
                continue
            if path.startswith(str(self.store.root)):
                found.append(path)
        return found


class _Place:
    """What the supervisor sees of it."""

    address = "tls://10.0.0.0:1"

    def __init__(self, world):
        self._world = world
        self.closed = False

    def nodes(self):
        return list(self._world.there)

    async def close(self):
        self.closed = True
