"""A run's way through its generations, without interference by people."""

import pytest

from cnai.engine.control.cluster import NodeLost
from cnai.engine.messages import Failure
from cnai.engine.records import Room
from cnai.events import Kind, Log, State


@pytest.mark.parametrize(("nodes", "shares"), [(1, [3]), (3, [1, 1, 1]), (2, [2, 1])])
async def test_from_submit_to_success(world, nodes, shares):
    for _ in range(nodes):
        world.node()
    run = await world.submit(3, nodes=nodes, env={"A": "b"})
    await run.running()
    orders = [agent.order for agent in run.agents]
    assert [order.ranks for order in orders] == shares
    assert [order.first_rank for order in orders] == [sum(shares[:number]) for number in range(nodes)]
    assert {order.endpoint for order in orders} == {f"10.0.0.1:{4242 if nodes > 1 else 0}"}
    assert {(order.nodes, order.env["A"], order.assignment.resume_from) for order in orders} == {(nodes, "b", None)}
    (run.folder.path / "result-gen-0").write_text("it")
    run.finish()
    await run.becomes(State.SUCCEEDED)
    assert run.states == ["RUNNING", "SUCCEEDED"]
    assert run.folder.result.read_text() == "it"
    assert (run.status.generation, run.status.world_size, run.status.engine) == (0, 3, "local")


async def test_watchers_get_the_journal_with_its_positions(world):
    world.node()
    run = await (await world.submit()).running()
    run.agent.checkpoint(1)
    run.finish()
    await run.becomes(State.SUCCEEDED)
    journal = run.folder.read_journal()
    assert b"".join(text.encode() for _, _, text in world.heard) == journal
    assert all(journal[at:].startswith(text.encode()) for _, at, text in world.heard)


async def test_it_runs_only_when_all_nodes_have_started(world):
    first, second = world.node(), world.node(slots=0)
    run = await world.submit(2, nodes=2)
    await world.until(lambda: first.agents and first.agents[0].begun)
    await world.pass_by(5)
    assert run.state is State.PENDING
    second.slots = 1
    second.next()
    await run.running()


async def test_an_exception_ends_the_run(world):
    world.node()
    run = await (await world.submit(2)).running()
    run.agent.crash("OutOfMemoryError: CUDA out of memory", rank=1)
    await run.becomes(State.FAILED)
    assert run.failure.rank == 1
    assert run.failure.payload["summary"] == "rank 1: OutOfMemoryError: CUDA out of memory"
    assert run.failure.payload["traceback"] == "line 1"
    assert "smaller batch_size" in run.failure.payload["hint"]
    assert run.status.reason == "rank 1: OutOfMemoryError: CUDA out of memory"


async def test_an_exit_shows_the_end_of_its_log(world):
    world.node()
    run = await (await world.submit()).running()
    log = run.folder.log_file(0, 0)
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"{number}\n" for number in range(20)) + "No space left on device\n")
    run.agent.kill(code=3)
    await run.becomes(State.FAILED)
    assert run.failure.payload["log_tail"].splitlines()[0] == "11"
    assert "the disk is full" in run.failure.payload["hint"]


@pytest.mark.parametrize("steps", [(), (5, 7)])
async def test_a_crash_goes_on_from_the_last_checkpoint(world, steps):
    world.node()
    run = await (await world.submit(2, retries=1)).running()
    for step in steps:
        run.agent.checkpoint(step)
    run.agent.crash("ValueError: x")
    await run.running(1)
    resumed = run.agent.order.assignment.resume_from
    assert (resumed and resumed.name) == (f"step-{steps[-1]}" if steps else None)
    (begun,) = [e for e in run.folder.events() if e.kind is Kind.GENERATION and e.generation == 1]
    assert begun.payload == {"ranks": 2, "from_step": steps[-1] if steps else 0}
    where = f"from step-{steps[-1]}" if steps else "from the beginning"
    assert run.reasons[1] == f"rank 0: ValueError: x; continuing {where}"


async def test_the_budget_is_for_failures_without_progress(world):
    world.node()
    run = await (await world.submit(infra_retries=1)).running()
    for generation in range(3):
        run.agent.checkpoint(generation + 1)
        run.agent.kill()
        await run.running(generation + 1)
    run.agent.kill()
    await run.becomes(State.FAILED)
    assert run.generations == [1] * 4


async def test_user_and_infra_failures_have_budgets_of_their_own(world):
    world.node()
    run = await (await world.submit(infra_retries=1, retries=1)).running()
    run.agent.kill()
    await run.running(1)
    run.agent.crash("ValueError: x")
    await run.running(2)
    run.agent.crash("ValueError: x")
    await run.becomes(State.FAILED)


async def test_the_failure_of_one_node_ends_the_others(world):
    world.node(), world.node(manners="stubborn")
    run = await (await world.submit(2, nodes=2, infra_retries=0)).running()
    other = run.agents[1]
    run.agents[0].kill()
    await world.until(lambda: other.told == ["terminate"])
    await run.becomes(State.FAILED)
    assert other.told == ["terminate", "kill"]
    assert run.status.reason == "rank 0 was killed by SIGKILL"


async def test_a_node_is_lost_before_its_port_is_known(world):
    first, _ = world.node(), world.node()

    async def dies():
        first.lose()
        raise NodeLost

    first.free_port = dies
    run = await world.submit(2, nodes=2)
    await run.becomes(State.RESTARTING)
    assert run.status.reason == "node 0 was lost; continuing from the beginning"
    world.node()
    await run.running(1)


async def test_a_node_is_lost_before_its_agent_starts(world):
    node = world.node(slots=0)
    run = await world.submit()
    await world.until(lambda: node.agents)
    await world.pass_by(1)
    node.lose()
    world.node()
    await run.running(1)
    assert "node 0 was lost; continuing from the beginning" in run.reasons


async def test_a_node_is_lost_while_it_runs(world):
    first, _ = world.node(), world.node()
    run = await (await world.submit(2, nodes=2)).running()
    run.agents[0].checkpoint(3)
    other = run.agents[1]
    first.lose()
    world.node()
    await run.running(1)
    assert other.told == ["terminate"]
    assert "node 0 was lost; continuing from step-3" in run.reasons
    assert run.agent.order.assignment.resume_from.name == "step-3"


async def test_an_agent_that_fails_to_start_is_a_lost_node(world):
    world.node()
    run = await (await world.submit(infra_retries=1)).running(steps=False)
    run.agent.end(error="node 0: RuntimeError: no forkserver")
    await run.running(1)
    run.agent.end(error="node 0: RuntimeError: no forkserver")
    await run.becomes(State.FAILED)
    assert run.status.reason == "node 0: RuntimeError: no forkserver"


async def test_an_agent_that_never_starts_can_be_stopped(world):
    node = world.node(slots=0)
    run = await world.submit()
    await world.until(lambda: node.agents)
    await world.pass_by(3600)
    assert run.state is State.PENDING
    assert await run.wish("stop") is None
    await run.becomes(State.CANCELLED)
    assert node.agents[0].cancelled
    assert not node.agents[0].begun


async def test_too_few_nodes(world):
    world.node()
    run = await world.submit(2, nodes=2)
    before = world.clock.now
    await run.becomes(State.FAILED)
    assert run.status.reason == "2 nodes needed, 1 found within 60 s"
    assert 60 <= world.clock.now - before < 62
    assert run.failure.payload["summary"] == run.status.reason


async def test_a_node_that_comes_late_is_in_time(world):
    run = await world.submit()
    await world.pass_by(50)
    world.node()
    await run.running()


async def test_so_many_ranks_per_node(world):
    world.node(), world.node()
    run = await (await world.submit(4, room=Room(ranks_per_node=2, cpu=2.0, gpus=1))).running()
    assert [(a.order.ranks, a.order.cpu, a.order.gpus) for a in run.agents] == [(2, 2.0, 1)] * 2


async def test_the_least_loaded_node_that_is_open_is_taken(world):
    first, second, third = world.node(), world.node(), world.node()
    third.open = False
    one = await (await world.submit()).running()
    two = await (await world.submit()).running()
    assert (one.agent.node, two.agent.node) == (first, second)


async def test_two_runs_share_a_node_one_after_the_other(world):
    node = world.node(slots=1)
    one = await (await world.submit()).running()
    two = await world.submit(deadline_seconds=10_000)
    await world.until(lambda: len(node.agents) == 2)
    await world.pass_by(1000)
    assert (one.state, two.state) == (State.RUNNING, State.PENDING)
    one.finish()
    await one.becomes(State.SUCCEEDED)
    await two.running()


async def test_a_run_on_several_nodes_waits_until_they_are_free_together(world):
    world.node(), world.node()
    one = await (await world.submit()).running()
    two = await world.submit(2, nodes=2)
    await world.pass_by(1000)
    assert two.state is State.PENDING
    one.finish()
    await two.running()


async def test_a_stall_is_dumped_and_started_again(world):
    world.node()
    run = await (await world.submit(stall_seconds=100)).running()
    await world.pass_by(90)
    run.agent.checkpoint(1)
    stalled = run.agent
    await world.pass_by(90)
    assert stalled.told == []
    await run.running(1)
    assert stalled.told == ["dump", "terminate"]
    assert "no step or output for 100 s; the ranks' logs have the stacks of their threads; continuing from step-1" in (
        run.reasons
    )


async def test_a_run_that_waits_for_its_node_does_not_stall(world):
    node = world.node(slots=0)
    run = await world.submit(stall_seconds=10)
    await world.pass_by(1000)
    assert run.state is State.PENDING
    node.slots = 1
    node.next()
    await run.running()


@pytest.mark.parametrize("manners", ["polite", "stubborn"])
async def test_a_deadline_has_no_second_try(world, manners):
    world.node(manners=manners)
    run = await (await world.submit(deadline_seconds=500, infra_retries=9, retries=9)).running()
    await world.pass_by(400)
    assert run.state is State.RUNNING
    await run.becomes(State.FAILED)
    assert run.status.reason == "the deadline of 500 s has passed"
    assert run.agent.told == ["terminate", "kill"][: 1 + (manners == "stubborn")]


async def test_what_an_old_generation_says_late_is_nobodys(world):
    world.node()
    run = await (await world.submit(2)).running()
    old = run.agent
    old.kill()
    await run.running(1)
    before = run.folder.read_journal(), run.status
    old.checkpoint(9)
    old.crash("ValueError: old")
    old.announce(max_ranks=99)
    await world.pass_by(5)
    assert (run.folder.read_journal(), run.status) == before
    run.finish()
    await run.becomes(State.SUCCEEDED)
    run.agent.tell(Log(text="after the end"))
    assert b"after the end" not in run.folder.read_journal()


async def test_a_leaving_node_hands_its_run_over(world):
    first, second = world.node(), world.node()
    run = await (await world.submit(infra_retries=0)).running()
    other = await (await world.submit()).running()
    first.leave()
    await run.running(1)
    assert run.generations == [1, 1]
    assert "its node is shutting down" in run.reasons
    assert run.agent.node is second
    assert other.generations == [1]


@pytest.mark.parametrize("how", ["finished", "ended"])
async def test_code_that_is_cut_by_leaving_may_say_anything(world, how):
    first = world.node(manners="stubborn")
    run = await (await world.submit(infra_retries=0)).running(steps=False)
    old = run.agent
    first.leave()
    await world.until(lambda: old.told == ["terminate"])
    world.node()
    old.end(how)
    await run.running(1)
    assert run.state is State.RUNNING


async def test_code_that_fails_by_itself_while_it_leaves_has_failed(world):
    first = world.node(manners="stubborn")
    run = await (await world.submit()).running()
    old = run.agent
    first.leave()
    await world.until(lambda: old.told == ["graceful"])
    world.node()
    old.crash("ValueError: x")
    await run.becomes(State.FAILED)


async def test_a_node_that_does_not_hear_is_ended_when_it_is_lost(world):
    node = world.node()
    run = await (await world.submit()).running()
    node.deaf = True
    await run.wish("stop")
    await world.pass_by(100)
    assert run.agent.told == []
    node.lose()
    await run.becomes(State.CANCELLED)


async def test_failures_of_several_nodes_have_the_first_as_their_cause(world):
    world.node(manners="stubborn"), world.node(manners="stubborn")
    run = await (await world.submit(2, nodes=2, infra_retries=0)).running()
    run.agents[1].end(failures=(Failure(rank=1, exit_code=-11, time=5.0),))
    run.agents[0].end(failures=(Failure(rank=0, exit_code=-6, time=6.0),))
    await run.becomes(State.FAILED)
    assert run.status.reason == "rank 1 was killed by SIGSEGV"
