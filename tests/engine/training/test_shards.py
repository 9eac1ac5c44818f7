from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cnai.engine.training.shards import Plan, mix, part
from cnai.errors import UsageError


@st.composite
def plans(draw):
    shards = draw(st.integers(1, 9))
    return Plan(
        samples=draw(st.integers(shards, 300)),
        batch_size=draw(st.integers(shards, 80)),
        epochs=draw(st.integers(1, 3)),
        shards=shards,
        shuffle=draw(st.booleans()),
        seed=draw(st.integers(0, 2**40)),
    )


def micros_of(plan, world_size, done=0):
    """All ranks' micro-batches by step, in the order of the shards."""
    steps = {}
    for rank in range(world_size):
        for micros in plan.steps(done, rank, world_size):
            steps.setdefault(micros[0].done, []).extend(micros)
    return steps


def samples_of(plan, micros):
    return [plan.order(m.epoch)[m.start : m.stop].tolist() for m in micros]


@given(plans())
@settings(deadline=None)
def test_an_epoch_sees_each_sample_once_but_a_last_batch_smaller_than_shards(plan):
    for epoch in range(plan.epochs):
        seen = [
            number
            for micros in micros_of(plan, 1).values()
            if micros[0].epoch == epoch
            for shard in samples_of(plan, micros)
            for number in shard
        ]
        assert len(seen) == len(set(seen))
        left_out = plan.samples - len(seen)
        assert left_out < plan.shards
        assert left_out in {0, plan.samples % plan.batch_size}


@given(plans(), st.data())
@settings(deadline=None)
def test_shards_are_the_same_for_any_number_of_ranks(plan, data):
    world_size = data.draw(st.integers(1, plan.shards))
    alone, shared = micros_of(plan, 1), micros_of(plan, world_size)
    assert alone.keys() == shared.keys()
    for step, micros in alone.items():
        assert samples_of(plan, micros) == samples_of(plan, shared[step])
        assert [m.shard for m in shared[step]] == list(range(plan.shards))
        assert [plan.random_seed(m) for m in micros] == [plan.random_seed(m) for m in shared[step]]


@given(plans(), st.data())
@settings(deadline=None)
def test_a_resized_loop_goes_on_where_it_was(plan, data):
    steps = plan.epochs * plan.steps_per_epoch
    done = data.draw(st.integers(0, steps))
    before, after = (data.draw(st.integers(1, plan.shards)) for _ in range(2))
    early = {step: micros for step, micros in micros_of(plan, before).items() if step < done}
    both = {**early, **micros_of(plan, after, done)}
    assert {s: samples_of(plan, m) for s, m in both.items()} == {
        s: samples_of(plan, m) for s, m in micros_of(plan, 1).items()
    }


@given(plans(), st.data())
@settings(deadline=None)
def test_each_rank_has_its_first_and_last_shard_and_shares_sum_up_to_the_batch(plan, data):
    world_size = data.draw(st.integers(1, plan.shards))
    for rank in range(world_size):
        for micros in plan.steps(0, rank, world_size):
            assert [m.first for m in micros] == [True] + [False] * (len(micros) - 1)
            assert [m.last for m in micros] == [False] * (len(micros) - 1) + [True]
            assert all(a.stop == b.start for a, b in pairwise(micros))
    for micros in micros_of(plan, world_size).values():
        sizes = [m.stop - m.start for m in micros]
        assert sum(m.share for m in micros) == pytest.approx(1)
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1


@given(plans())
@settings(deadline=None)
def test_only_the_last_step_of_an_epoch_ends_it(plan):
    ends = [step for step, micros in micros_of(plan, 1).items() if micros[-1].ends_epoch]
    assert ends == [plan.steps_per_epoch * (epoch + 1) - 1 for epoch in range(plan.epochs)]


def test_the_order_depends_on_seed_and_epoch():
    plan = Plan(samples=100, batch_size=10, epochs=2, shards=2)
    other = Plan(samples=100, batch_size=10, epochs=2, shards=2, seed=1)
    assert not torch.equal(plan.order(0), plan.order(1))
    assert not torch.equal(plan.order(0), other.order(0))
    assert torch.equal(Plan(samples=100, batch_size=20, epochs=1, shards=4).order(0), plan.order(0))


def test_seeds_differ_in_the_bits_that_torch_uses():
    seeds = {mix(seed, step, shard) & 0xFFFFFFFF for seed in range(3) for step in range(40) for shard in range(8)}
    assert len(seeds) == 3 * 40 * 8


@given(st.integers(0, 10**6), st.integers(1, 50))
def test_parts_are_nearly_equal_and_leave_nothing_out(total, parts):
    bounds = [part(total, parts, index) for index in range(parts)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == total
    assert all(a[1] == b[0] for a, b in pairwise(bounds))
    assert {stop - start for start, stop in bounds} <= {total // parts, total // parts + 1}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number from 1; given: 0"),
        ({"epochs": 0}, "epochs must be a whole number from 1; given: 0"),
        ({"shards": 0}, "shards must be a whole number from 1; given: 0"),
        ({"batch_size": 3}, r"at least shards \(4\); given: 3"),
        ({"samples": 3}, r"as many samples as shards \(4\); it has 3"),
    ],
)
def test_plans_that_cant_be(changed, says):
    with pytest.raises(UsageError, match=says):
        Plan(**{"samples": 100, "batch_size": 10, "epochs": 1, "shards": 4, **changed})


def test_more_ranks_than_shards():
    plan = Plan(samples=100, batch_size=10, epochs=1, shards=4)
    plan.require(4)
    with pytest.raises(UsageError, match="5 ranks can't share 4 shards; start at most 4 ranks, or pass shards=5"):
        plan.require(5)
