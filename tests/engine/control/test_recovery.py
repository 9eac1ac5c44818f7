"""One engine after the other, full disks, faults of our own, and what an engine tells about itself."""

import asyncio
import errno
import json
import logging
import os
from pathlib import Path

import pytest

from cnai.engine.control import generation, verdicts
from cnai.engine.control.verdicts import STOPPED
from cnai.engine.records import Status
from cnai.engine.scribe import Scribe
from cnai.errors import StoreError
from cnai.events import Kind, State


async def next_engine(world):
    """The scheduler is gone without a word; another one starts."""
    for node in list(world.there):
        node.lose()
    world.begin()
    world.node()
    await world.supervisor.recover()


def left(world, **status):
    """A run as an engine left it on disk."""
    run = world.create(2)
    run.folder.write_status(Status(**{"engine": "local", "world_size": 2, "first_world_size": 4, **status}))
    return run


@pytest.mark.parametrize(
    ("state", "reason", "why"),
    [
        (State.PENDING, STOPPED, "stopped"),
        (State.PENDING, "", "lost"),
        (State.RUNNING, "", "lost"),
        (State.RESIZING, "from 1 to 2 ranks", "lost"),
        (State.RESTARTING, STOPPED, "stopped"),
        (State.RESTARTING, "rank 0 was killed by SIGKILL", "lost"),
    ],
)
async def test_a_run_goes_on_with_the_next_engine(world, state, reason, why):
    run = left(world, state=state, reason=reason, generation=5, max_ranks=4)
    (run.folder.path / "checkpoints/gen-5/step-9").mkdir(parents=True)
    run.folder.commit_checkpoint("checkpoints/gen-5/step-9")
    await next_engine(world)
    await run.becomes(State.RUNNING, 0)
    assert run.reasons[0] == f"the engine was {why} and started again"
    assert run.status.generation == 6
    (agent,) = world.nodes[-1].agents
    assert (agent.order.ranks, agent.order.assignment.first_world_size) == (2, 4)
    assert agent.order.assignment.resume_from.name == "step-9"
    assert await run.wish("scale", 4) is None, "what its code can use is known"


async def test_a_paused_run_stays_paused(world):
    run = left(world, state=State.PAUSED, max_ranks=4)
    await next_engine(world)
    await world.pass_by(100)
    assert (run.state, run.generations) == (State.PAUSED, [])
    await run.wish("resume")
    await run.becomes(State.RUNNING)


async def test_final_foreign_and_unreadable_runs_are_left_alone(world, caplog):
    over = [left(world, state=state) for state in (State.SUCCEEDED, State.FAILED, State.CANCELLED)]
    foreign = left(world, state=State.RUNNING, engine="other")
    (foreign.folder.path / "record.json").write_text(json.dumps({"engine": "other"}))
    damaged = left(world, state=State.RUNNING)
    (damaged.folder.path / "state.json").write_text("{")
    good = left(world, state=State.RUNNING)
    with caplog.at_level(logging.CRITICAL):
        await next_engine(world)
    await good.becomes(State.RUNNING, 0)
    assert (await world.supervisor.status())["runs"] == {good.id: "RUNNING"}
    assert [run.generations for run in (*over, foreign)] == [[]] * 4


async def test_a_new_run_that_nobody_had_yet_begins(world):
    run = world.create(2)
    await next_engine(world)
    await run.becomes(State.RUNNING)
    assert run.reasons == [""]
    assert run.status.generation == 0


async def test_an_engine_without_a_name_finds_nothing(world):
    left(world, state=State.RUNNING)
    world.supervisor.engine = ""
    await world.supervisor.recover()
    assert (await world.supervisor.status())["runs"] == {}


async def test_expired_runs_are_removed_and_others_stay(world):
    runs = {ttl: world.create(ttl_seconds=ttl) for ttl in (10, 1000, None)}
    for run in runs.values():
        run.folder.write_status(Status(state=State.FAILED))
        os.utime(run.folder.path / "state.json", (world.clock.now, world.clock.now))
    await world.pass_by(100)
    await world.supervisor.recover()
    assert [run.folder.path.exists() for run in runs.values()] == [False, True, True]


async def test_submitted_twice_it_begins_once(world):
    world.node()
    run = await world.submit()
    await world.supervisor.submit(run.id, str(world.store.root))
    await run.running()
    run.finish()
    await run.becomes(State.SUCCEEDED)
    await world.pass_by(1)
    await world.supervisor.submit(run.id, str(world.store.root))
    assert (await world.supervisor.status())["runs"] == {}
    await world.pass_by(10)
    assert (run.generations, run.state) == ([1], State.SUCCEEDED)


class FullDisk:
    """Writes of a kind of file fail while `full`."""

    def __init__(self, monkeypatch):
        self.full = ""
        write_bytes, write = Path.write_bytes, os.write

        def refuse(path):
            if self.full and self.full in str(path):
                raise OSError(errno.ENOSPC, "No space left on device")

        def guarded_bytes(path, data):
            refuse(path.name)
            return write_bytes(path, data)

        def guarded(fd, data):
            refuse(os.readlink(f"/proc/self/fd/{fd}"))
            return write(fd, data)

        monkeypatch.setattr(Path, "write_bytes", guarded_bytes)
        monkeypatch.setattr(os, "write", guarded)


@pytest.fixture
def disk(monkeypatch):
    return FullDisk(monkeypatch)


async def test_a_checkpoint_that_can_not_be_committed_is_not_the_last(world, disk):
    world.node()
    run = await (await world.submit()).running()
    run.agent.checkpoint(1)
    disk.full = "latest"
    run.agent.checkpoint(2)
    disk.full = ""
    (told,) = [e for e in run.folder.events() if e.kind is Kind.DIAGNOSIS]
    assert told.payload["summary"].startswith("checkpoint not kept: the disk of")
    run.agent.kill()
    await run.running(1)
    assert run.agent.order.assignment.resume_from.name == "step-1"


@pytest.mark.parametrize("full", ["events.jsonl", "state.json"])
async def test_a_run_goes_on_while_the_disk_is_full_and_its_end_is_not_lost(world, disk, full):
    world.node()
    run = await (await world.submit(2)).running()
    disk.full = full
    run.agent.checkpoint(1)
    await run.wish("scale", 3)
    await world.until(lambda: len(world.nodes[0].agents) == 2)
    world.nodes[0].agents[1].end()
    await world.pass_by(1000)
    assert run.folder.status().state is (State.SUCCEEDED if full == "events.jsonl" else State.RUNNING)
    disk.full = ""
    await world.pass_by(10)
    assert run.state is State.SUCCEEDED
    assert run.states == ["RUNNING", "RESIZING", "RUNNING", "SUCCEEDED"]
    assert "".join(text for _, _, text in world.heard).encode() == run.folder.read_journal()
    assert (await world.supervisor.status())["runs"] == {}


async def test_an_engine_that_ends_does_not_wait_for_room(world, disk):
    world.node()
    run = await (await world.submit()).running()
    disk.full = "state.json"
    run.finish()
    await world.pass_by(100)
    await world.supervisor.rest()
    disk.full = ""
    await next_engine(world)
    await run.becomes(State.RUNNING, 1)


@pytest.mark.parametrize(("grace", "step"), [(25, "step-7"), (5, "step-2")])
async def test_an_engine_that_ends_waits_for_a_step_as_long_as_the_grace(world, grace, step):
    world.node(manners="deaf")
    run = await (await world.submit(grace_seconds=grace)).running()
    run.agent.checkpoint(2)
    before = world.clock.now
    resting = asyncio.create_task(world.supervisor.rest())
    await world.pass_by(20)
    if not resting.done():
        run.agent.checkpoint(7)
        run.agent.end("ended")
    await resting
    assert world.clock.now - before < 23
    assert (run.state, run.status.reason, run.folder.latest().name) == (State.RESTARTING, STOPPED, step)


async def test_a_fault_of_ours_is_the_end_of_the_run_and_its_ranks(world, monkeypatch, caplog):
    world.node()
    other = await (await world.submit()).running()
    run = await (await world.submit(infra_retries=9)).running()

    async def broken(self):
        if self._assignment.run_id == run.id:
            raise ZeroDivisionError("by us")

    monkeypatch.setattr(generation.Generation, "_check_limits", broken)
    with caplog.at_level(logging.CRITICAL):
        await run.becomes(State.FAILED)
        await world.pass_by(10)
    assert run.failure.payload["summary"] == "the engine failed: ZeroDivisionError: by us"
    assert run.agent.told == ["kill"]
    assert other.state is State.RUNNING


async def test_a_node_that_can_not_be_asked_to_start_ends_what_others_have_started(world, caplog):
    first, second = world.node(), world.node()

    async def broken(order):
        await world.pass_by(1)
        raise RuntimeError("by Dask")

    second.start = broken
    run = await world.submit(2, nodes=2)
    with caplog.at_level(logging.CRITICAL):
        await run.becomes(State.FAILED)
        await world.pass_by(10)
    assert run.status.reason == "the engine failed: RuntimeError: by Dask"
    assert first.agents[0].told == ["kill"]


async def test_a_fault_of_ours_between_generations(world, monkeypatch, caplog):
    world.node()
    run = await (await world.submit()).running()

    def broken(*_):
        raise ZeroDivisionError("by us")

    monkeypatch.setattr(verdicts, "judge", broken)
    with caplog.at_level(logging.CRITICAL):
        run.finish()
        await run.becomes(State.FAILED)
    assert run.status.reason == "the engine failed: ZeroDivisionError: by us"


async def test_a_fault_while_the_engine_rests_leaves_the_run_to_the_next_one(world, monkeypatch, caplog):
    world.node()
    run = await (await world.submit()).running()

    def broken(*_):
        raise ZeroDivisionError("by us")

    monkeypatch.setattr(verdicts, "judge", broken)
    with caplog.at_level(logging.CRITICAL):
        await world.supervisor.rest()
    assert (run.state, run.status.reason) == (State.RESTARTING, STOPPED)


async def test_a_journal_that_can_not_be_written_at_all(world, monkeypatch, caplog):
    """The run is as it was on disk; the next engine finds it, and nothing stays open."""
    world.node()
    run = await (await world.submit()).running()
    write = os.write

    def broken(fd, data):
        if os.readlink(f"/proc/self/fd/{fd}").endswith("events.jsonl"):
            raise OSError(errno.EIO, "Input/output error")
        return write(fd, data)

    monkeypatch.setattr(os, "write", broken)
    with caplog.at_level(logging.CRITICAL):
        run.finish()
        await world.pass_by(10)
    assert world.open_journals() == []
    assert (await world.supervisor.status())["runs"] == {}
    assert run.state is State.RUNNING
    monkeypatch.setattr(os, "write", write)
    await next_engine(world)
    await run.becomes(State.RUNNING, 1)


async def test_a_state_has_only_the_ways_out_that_it_has(world):
    run = left(world, state=State.SUCCEEDED)
    scribe = Scribe(run.folder)
    with pytest.raises(AssertionError, match="SUCCEEDED can't become RUNNING"):
        scribe.become(State.RUNNING)
    assert (run.state, run.states) == (State.SUCCEEDED, [])
    scribe.close()


async def test_a_scribe_says_that_the_disk_is_full_but_the_state_counts(world, disk):
    run = left(world)
    scribe = Scribe(run.folder)
    disk.full = "state.json"
    with pytest.raises(StoreError, match="is full"):
        scribe.become(State.FAILED, "why")
    assert scribe.behind
    assert (scribe.status.state, run.state, run.states) == (State.FAILED, State.PENDING, ["FAILED"])
    disk.full = ""
    scribe.catch_up()
    assert not scribe.behind
    assert (run.state, run.status.reason) == (State.FAILED, "why")
    scribe.close()


async def test_status_names_nodes_that_answer(world):
    first, second = world.node(), world.node()
    second.deaf = True
    run = await (await world.submit()).running()
    told = await world.supervisor.status()
    assert [node["address"] for node in told["nodes"]] == [first.address]
    assert (told["runs"], told["pid"]) == ({run.id: "RUNNING"}, os.getpid())


async def test_idle_since_the_last_run_ended_or_paused(world):
    assert world.supervisor.idle_since() == 0, "it may still find runs"
    world.node()
    run = await (await world.submit()).running()
    assert world.supervisor.idle_since() == 0
    await run.wish("pause")
    await run.becomes(State.PAUSED)
    since = world.supervisor.idle_since()
    await world.pass_by(100)
    assert world.supervisor.idle_since() == since > 0
    await run.wish("pause", only_ask=True)
    assert world.supervisor.idle_since() > since, "somebody asks: it isn't idle"


async def test_nodes_without_ranks_retire_first_and_get_none(world):
    first, second, third = (world.node() for _ in range(3))
    run = await (await world.submit()).running()
    second.open = False
    told = world.supervisor.retire(2)
    assert list(told) == [second.address, third.address, first.address]
    assert told[first.address] == {"name": "node-1", "busy": True}
    assert [node.address for node in world.supervisor.nodes()] == [first.address]
    await world.pass_by(61)
    assert third in world.supervisor.nodes(), "nobody ended it"
    first.leave()
    await run.running(1)
    assert run.agent.node is third
    await world.pass_by(1000)
    assert first not in world.supervisor.nodes(), "it said itself that it leaves"


async def test_other_topics_and_other_runs_are_nobodys(world):
    world.supervisor.log_event("other", {"message": "Leaving"})
    world.node().leave()
    await world.pass_by(1)
