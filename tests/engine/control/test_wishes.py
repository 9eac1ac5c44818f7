"""What people may ask of a run, in each of its states, and what becomes of it."""

import asyncio

import pytest

from cnai.engine.commands import ASKABLE, Wish, refusal
from cnai.engine.records import Status
from cnai.events import TRANSITIONS, State

GOING_ON = [State.PENDING, State.RUNNING, State.RESIZING, State.RESTARTING]
FINAL = [State.SUCCEEDED, State.FAILED, State.CANCELLED]


def may(verb, ranks=None, *, state=State.RUNNING, most=4, has_engine=True):
    return refusal(Wish(verb, ranks), "fit", Status(state=state, max_ranks=most), has_engine=has_engine)


def test_every_state_says_what_may_be_asked():
    assert set(ASKABLE) == set(State) == set(TRANSITIONS)


@pytest.mark.parametrize("state", GOING_ON)
def test_a_run_that_goes_on(state):
    assert [may(verb, state=state) for verb in ("stop", "pause")] == [None, None]
    assert may("scale", 4, state=state) is None
    assert may("resume", state=state) == f"run fit is {state}, not PAUSED; there is nothing to resume"


@pytest.mark.parametrize("has_engine", [True, False])
def test_a_paused_run(has_engine):
    for verb, ranks in (("stop", None), ("resume", None), ("resume", 2), ("scale", 2)):
        assert may(verb, ranks, state=State.PAUSED, has_engine=has_engine) is None
    assert may("pause", state=State.PAUSED) == "run fit is PAUSED already"
    assert "4 shards" in may("resume", 5, state=State.PAUSED)


@pytest.mark.parametrize("state", FINAL)
def test_a_run_that_is_over(state):
    for verb in ("stop", "pause", "resume", "scale"):
        assert may(verb, 1, state=state) == f"run fit is {state} already; nothing to {verb}"


@pytest.mark.parametrize("state", GOING_ON)
def test_without_an_engine_it_can_only_be_stopped(state):
    assert may("stop", state=state, has_engine=False) is None
    for verb in ("pause", "scale"):
        why = may(verb, 1, state=state, has_engine=False)
        assert why.startswith(f"can't {verb} run fit now, its engine has not started yet: the run is {state}")


@pytest.mark.parametrize("ranks", [None, 0, -1])
def test_ranks_are_numbers_from_one(ranks):
    assert may("scale", ranks) == f"ranks must be 1 or more; given: {ranks}"


def test_code_without_steps_can_only_be_stopped():
    assert may("stop", most=None) is None
    assert "has not reached ctx.steps()" in may("pause", most=None)
    assert "has not reached ctx.steps()" in may("scale", 2, most=None)
    assert may("scale", 5) == "this run splits each step into 4 shards; ranks may be 1 to 4"


async def test_refusals_reach_those_who_ask_and_change_nothing(world):
    world.node()
    run = await (await world.submit(2)).running()
    assert await run.wish("resume") == f"run {run.id} is RUNNING, not PAUSED; there is nothing to resume"
    assert "4 shards" in await run.wish("scale", 5)
    assert await run.wish("pause", only_ask=True) is None
    await world.pass_by(5)
    assert run.agent.told == []
    run.finish()
    await run.becomes(State.SUCCEEDED)
    await world.pass_by(1)
    assert await run.wish("stop") == f"run {run.id} isn't running on this engine; see %cnai runs"


async def test_a_pause_at_a_step_boundary(world):
    world.node()
    run = await (await world.submit(2)).running()
    run.agent.checkpoint(5)
    await run.wish("pause")
    await run.becomes(State.PAUSED)
    assert run.agent.told == ["graceful"]
    await world.pass_by(3600)
    assert run.generations == [2]
    await run.wish("resume")
    await run.running(1)
    assert run.states[1:] == ["PAUSED", "RESTARTING", "RUNNING"]
    assert run.agent.order.assignment.resume_from.name == "step-5"


@pytest.mark.parametrize(
    ("manners", "told", "seconds"),
    [("deaf", ["graceful", "terminate"], 60), ("stubborn", ["graceful", "terminate", "kill"], 95)],
)
async def test_patience_ends(world, manners, told, seconds):
    world.node(manners=manners)
    run = await (await world.submit()).running()
    before = world.clock.now
    await run.wish("pause")
    await run.becomes(State.PAUSED)
    assert run.agent.told == told
    assert seconds <= world.clock.now - before < seconds + 5


@pytest.mark.parametrize(("grace", "seconds"), [(2.0, 7), (100.0, 105)])
async def test_stubborn_code_is_killed_after_its_grace(world, grace, seconds):
    world.node(manners="stubborn")
    run = await (await world.submit(grace_seconds=grace)).running()
    assert run.agent.order.grace_seconds == grace
    before = world.clock.now
    await run.wish("stop")
    await run.becomes(State.CANCELLED)
    assert run.agent.told == ["terminate", "kill"]
    assert seconds <= world.clock.now - before < seconds + 5


async def test_steps_may_take_as_long_as_the_grace(world):
    world.node(manners="deaf")
    run = await (await world.submit(grace_seconds=200)).running()
    await run.wish("pause")
    await world.pass_by(190)
    assert run.agent.told == ["graceful"]
    await run.becomes(State.PAUSED)


async def test_a_second_stop_ends_at_once(world):
    world.node(manners="stubborn")
    run = await (await world.submit()).running()
    await run.wish("stop")
    await world.until(lambda: run.agent.told == ["terminate"])
    before = world.clock.now
    await run.wish("stop")
    await run.becomes(State.CANCELLED)
    assert run.agent.told == ["terminate", "kill"]
    assert world.clock.now - before < 1


@pytest.mark.parametrize(("verb", "state"), [("stop", State.CANCELLED), ("pause", State.PAUSED)])
async def test_code_that_returns_when_it_is_terminated_has_not_finished(world, verb, state):
    world.node(manners="courteous")
    run = await (await world.submit()).running()
    await run.wish(verb)
    await run.becomes(state)
    assert State.SUCCEEDED not in run.states


async def test_code_that_left_its_steps_is_terminated(world):
    world.node()
    run = await (await world.submit()).running()
    run.agent.announce(graceful=False)
    await run.wish("pause")
    await run.becomes(State.PAUSED)
    assert run.agent.told == ["terminate"]


async def test_only_rank_0_says_that_code_ends_at_boundaries(world):
    world.node(), world.node()
    run = await (await world.submit(2, nodes=2)).running(steps=False)
    run.agents[1].announce(graceful=True, max_ranks=3)
    await run.wish("pause")
    await run.becomes(State.PAUSED)
    assert run.agents[0].told == ["terminate"]
    assert run.status.max_ranks == 3


async def test_what_the_code_can_use_is_on_disk_at_once(world):
    world.node()
    run = await (await world.submit()).running(steps=False)
    assert run.status.max_ranks is None
    run.agent.announce(max_ranks=3)
    assert run.status.max_ranks == 3


async def test_the_end_overtakes_a_pause(world):
    world.node(manners="stubborn")
    run = await (await world.submit()).running()
    await run.wish("pause")
    await world.until(lambda: run.agent.told)
    run.finish()
    await run.becomes(State.SUCCEEDED)


@pytest.mark.parametrize(("begun", "wanted"), [(1, 3), (3, 1)])
async def test_resize(world, begun, wanted):
    world.node()
    run = await (await world.submit(begun)).running()
    await run.wish("scale", wanted)
    await run.running(1)
    assert run.generations == [begun, wanted]
    assert run.reasons[1] == f"from {begun} to {wanted} ranks"
    assert run.states == ["RUNNING", "RESIZING", "RUNNING"]
    assert (run.status.world_size, run.status.first_world_size) == (wanted, begun)
    assert run.agent.order.assignment.first_world_size == begun


async def test_the_size_that_it_has_changes_nothing(world):
    world.node()
    run = await (await world.submit(2)).running()
    await run.wish("scale", 2)
    await world.pass_by(100)
    assert (run.agent.told, run.generations, run.states) == ([], [2], ["RUNNING"])
    run.agent.kill()
    await run.running(1)
    assert run.generations == [2, 2]


async def test_resized_again_while_it_is_resized(world):
    world.node(manners="stubborn")
    run = await (await world.submit(2)).running()
    await run.wish("scale", 3)
    await run.becomes(State.RESIZING)
    await run.wish("scale", 4)
    await world.pass_by(2)
    run.agent.end("ended")
    await run.running(1)
    assert run.generations == [2, 4]
    assert run.reasons[1:3] == ["from 2 to 3 ranks", "from 2 to 4 ranks"]


async def test_resized_back_while_it_is_resized(world):
    """Ranks that were told to end can't be told to stay; it is no node that leaves and no failure."""
    world.node(manners="stubborn")
    run = await (await world.submit(2, infra_retries=0)).running()
    await run.wish("scale", 3)
    await run.becomes(State.RESIZING)
    await run.wish("scale", 2)
    await world.pass_by(2)
    run.agent.end("ended")
    await run.running(1)
    assert run.generations == [2, 2]
    assert "its node is shutting down" not in run.reasons


async def test_a_stop_that_is_overtaken_is_no_failure(world):
    world.node(manners="stubborn")
    run = await (await world.submit(2, infra_retries=0)).running()
    await run.wish("stop")
    await world.until(lambda: run.agent.told)
    await run.wish("scale", 2)
    await world.pass_by(2)
    run.agent.end(error="SignalException: Process 1 got signal: 15")
    await run.running(1)
    assert run.generations == [2, 2]


@pytest.mark.parametrize(
    ("wishes", "state", "ranks"),
    [
        ([("pause",), ("scale", 3)], State.RUNNING, 3),
        ([("scale", 3), ("pause",)], State.PAUSED, 2),
        ([("pause",), ("stop",)], State.CANCELLED, 2),
        ([("scale", 3), ("stop",)], State.CANCELLED, 2),
        ([("stop",), ("pause",)], State.PAUSED, 2),
    ],
)
@pytest.mark.parametrize("apart", [0, 2])
async def test_the_newest_wish_counts(world, wishes, state, ranks, apart):
    world.node(manners="stubborn")
    run = await (await world.submit(2)).running()
    for wish in wishes:
        assert await run.wish(*wish) is None
        await world.pass_by(apart)
    old = run.agent
    await world.pass_by(2)
    old.end("ended")
    await run.becomes(state, 1 if state is State.RUNNING else 0)
    assert run.status.world_size == ranks


async def test_a_paused_run_is_scaled_for_later(world):
    world.node()
    run = await (await world.submit(2)).running()
    await run.wish("pause")
    await run.becomes(State.PAUSED)
    await run.wish("scale", 3)
    assert run.status.world_size == 3, "also for whoever reads it while no engine is there"
    await run.wish("resume")
    await run.running(1)
    assert run.generations == [2, 3]


async def test_resumed_with_other_ranks_and_scaled_at_once(world):
    world.node()
    run = await (await world.submit(2)).running()
    await run.wish("pause")
    await run.becomes(State.PAUSED)
    await run.wish("resume", 3)
    await run.wish("scale", 4)
    await run.becomes(State.RUNNING)
    assert run.generations[-1] == 4


async def _pending(world):
    return await world.submit()


async def _running(world):
    world.node()
    return await (await world.submit()).running()


async def _paused(world):
    run = await _running(world)
    await run.wish("pause")
    return await run.becomes(State.PAUSED)


async def _resizing(world):
    world.node(manners="deaf")
    run = await (await world.submit(2)).running()
    await run.wish("scale", 3)
    return await run.becomes(State.RESIZING)


async def _restarting(world):
    run = await _running(world)
    world.nodes[0].lose()
    return await run.becomes(State.RESTARTING)


EACH_STATE = pytest.mark.parametrize("to", [_pending, _running, _paused, _resizing, _restarting])


@EACH_STATE
async def test_stop_in_each_state(world, to):
    run = await to(world)
    assert await run.wish("stop") is None
    await run.becomes(State.CANCELLED)
    assert run.status.reason == "stopped"
    await world.pass_by(1)
    assert (await world.supervisor.status())["runs"] == {}


@pytest.mark.parametrize(("verb", "ranks", "state"), [("pause", None, State.PAUSED), ("scale", 2, State.RESIZING)])
async def test_wishes_while_it_waits_for_its_nodes(world, verb, ranks, state):
    run = await _restarting(world)
    assert await run.wish(verb, ranks) is None
    await run.becomes(state)
    world.node()
    if verb == "pause":
        await world.pass_by(10)
        await run.wish("resume")
    await world.until(lambda: run.state is State.RUNNING)
    assert run.generations[-1] == (ranks or 1)


@EACH_STATE
async def test_rest_in_each_state(world, to):
    run = await to(world)
    before = run.state
    await world.supervisor.before_close()
    expected = before if before in {State.PENDING, State.PAUSED} else State.RESTARTING
    assert run.state is expected
    if before is not State.PAUSED:
        assert run.status.reason == "the engine was stopped; attach resumes the run"
    assert world.open_journals() == []


@pytest.mark.parametrize(
    ("verb", "ranks", "state", "world_size"),
    [("stop", None, State.CANCELLED, 2), ("pause", None, State.PAUSED, 2), ("scale", 3, State.RESTARTING, 3)],
)
@pytest.mark.parametrize("manners", ["polite", "stubborn"])
async def test_what_was_asked_for_is_kept_when_the_engine_rests(world, verb, ranks, state, world_size, manners):
    world.node(manners=manners)
    run = await (await world.submit(2)).running()
    await run.wish(verb, ranks)
    await world.supervisor.rest()
    assert (run.state, run.status.world_size) == (state, world_size)


async def test_rest_lets_ranks_reach_a_boundary_and_waits_no_longer_than_it_may(world):
    world.node(), world.node(manners="stubborn")
    one = await (await world.submit()).running()
    two = await (await world.submit()).running()
    before = world.clock.now
    await world.supervisor.rest(12, "its node is shutting down")
    assert 12 <= world.clock.now - before < 40
    assert (one.agent.told, two.agent.told) == (["graceful"], ["graceful"])
    assert {run.status.reason for run in (one, two)} == {"its node is shutting down"}
    assert world.supervisor.nodes()
    await world.supervisor.rest()
    await world.supervisor.close()


async def test_who_was_terminated_is_not_asked_again(world):
    """Nor does it get more time to end."""
    node = world.node(manners="stubborn")
    run = await (await world.submit()).running()
    before = world.clock.now
    await run.wish("stop")
    await world.until(lambda: run.agent.told)
    await world.pass_by(30)
    node.leave()
    await run.becomes(State.CANCELLED)
    assert run.agent.told == ["terminate", "kill"]
    assert world.clock.now - before < 40


async def test_what_finishes_while_the_engine_rests_has_finished(world):
    world.node(manners="stubborn")
    run = await (await world.submit()).running()
    resting = asyncio.create_task(world.supervisor.rest())
    await world.pass_by(2)
    run.finish()
    await resting
    assert run.state is State.SUCCEEDED
