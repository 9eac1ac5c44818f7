"""Nodes as Dask has them: a real scheduler and a real worker in this process, an agent that is a plain function."""

import asyncio
import contextlib
from pathlib import Path

import distributed
import pytest

from cnai.engine.control import workers
from cnai.engine.control.client import DOWN
from cnai.engine.control.cluster import NodeLost
from cnai.engine.messages import Assignment, End, Order, Report
from cnai.engine.node import node
from cnai.spec import Interval

ASSIGNMENT = Assignment(
    run_id="fit",
    generation=3,
    run_dir=Path("/nowhere"),
    resume_from=None,
    checkpoint_every=Interval(steps=1),
    timeout_seconds=1.0,
    first_world_size=1,
)


def order(node_rank=0, **env):
    return Order(
        assignment=ASSIGNMENT,
        node_rank=node_rank,
        nodes=1,
        first_rank=0,
        ranks=1,
        endpoint="127.0.0.1:0",
        cwd="/",
        env=env,
        cpu=None,
        gpus=None,
        grace_seconds=30.0,
        debug=False,
    )


def says_it_ended(order):
    return Report(node_rank=order.node_rank, said={0: "finished"})


def fails(order):
    raise RuntimeError("no forkserver")


@contextlib.asynccontextmanager
async def dask():
    """A scheduler with one worker, which has room for one agent."""
    async with distributed.Scheduler(port=0, host="127.0.0.1", dashboard_address=":0", dashboard=False) as scheduler:
        place = workers.Workers(scheduler)
        async with distributed.Worker(
            scheduler.address, nthreads=1, resources={"node": 1}, dashboard=False, dashboard_address=":0"
        ) as worker:
            yield scheduler, place, worker
        await place.close()


def play(story, monkeypatch, agent=says_it_ended):
    monkeypatch.setattr(node, "run_agent", agent)

    async def told():
        async with dask() as (scheduler, place, worker):
            await story(scheduler, place, worker)

    settings = {
        "distributed.comm.timeouts.connect": "1s",
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
    }
    with distributed.utils.dask.config.set(settings):
        asyncio.run(asyncio.wait_for(told(), 60))


def test_an_agent_reports_and_leaves_nothing_with_the_scheduler(monkeypatch):
    async def story(scheduler, place, worker):
        (one,) = place.nodes()
        assert (one.there, one.open, one.load, one.host) == (True, True, 0, "127.0.0.1")
        agent = await one.start(order())
        assert await agent.report() == Report(node_rank=0, said={0: "finished"})
        assert agent.done
        assert await (await place.client()).list_datasets() == ()

    play(story, monkeypatch)


def test_an_agent_that_can_not_start_has_a_report(monkeypatch):
    async def story(scheduler, place, worker):
        agent = await place.nodes()[0].start(order(2))
        assert (await agent.report()).error == "node 2: RuntimeError: no forkserver"

    play(story, monkeypatch, fails)


@pytest.mark.parametrize(("lost", "why"), [(False, "canceled before it started on node 1"), (True, "node 1 was lost")])
def test_one_that_waits_for_room_is_given_up(monkeypatch, lost, why):
    async def story(scheduler, place, worker):
        await (await place.client()).run_on_scheduler(_no_room, worker.address)
        (one,) = place.nodes()
        agent = await one.start(order(1))
        if lost:
            await worker.close()
        assert one.there is not lost
        assert not agent.done
        await agent.cancel()
        assert (await agent.report()).error == why

    play(story, monkeypatch)


def test_a_node_that_is_gone_is_lost_for_those_who_ask(monkeypatch):
    async def story(scheduler, place, worker):
        worker.handlers["cnai_port"] = node.port
        (one,) = place.nodes()
        assert await one.free_port() > 0
        await worker.close()
        with pytest.raises(NodeLost, match="cnai_port on tcp://"):
            await one.free_port()
        with pytest.raises(NodeLost, match="cnai_tell on tcp://"):
            await one.tell(End(run_id="fit", generation=3, how="kill"))
        assert place.nodes() == []

    play(story, monkeypatch)


def test_everybody_who_watches_hears_of_the_journal(monkeypatch):
    async def story(scheduler, place, worker):
        workers.Topic(scheduler).take("fit", 7, "{}\n")
        ((_, batch),) = await (await place.client()).get_events(DOWN)
        assert batch == {"run": "fit", "at": 7, "text": "{}\n"}

    play(story, monkeypatch)


def _no_room(address, dask_scheduler):
    dask_scheduler.workers[address].used_resources["node"] = 1
