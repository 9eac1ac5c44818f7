import time

import pytest
import torch

from cnai.engine.messages import Abilities
from cnai.events import Kind
from cnai.run.series import Metrics
from engine.ranks import checkpoints, launch, metric
from engine.trainings import batches, classify

pytestmark = pytest.mark.usefixtures("starts_children")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """`classify` in two ranks from start to end."""
    ranks = launch(classify, 2, tmp_path_factory.mktemp("undisturbed"))
    assert [rank.ended for rank in ranks] == ["returned"] * 2
    return ranks


def assert_same_end(ranks, undisturbed):
    for name, value in undisturbed[0].value["weights"].items():
        if name != "hidden.bias":
            torch.testing.assert_close(
                torch.tensor(ranks[0].value["weights"][name]), torch.tensor(value), rtol=1e-3, atol=1e-4, msg=name
            )


@pytest.mark.parametrize("world_size", [1, 3])
def test_resumes_in_the_middle_of_an_epoch_with_other_ranks(world_size, undisturbed, tmp_path):
    early = launch(classify, 2, tmp_path, 3, 32, 7, every=6)
    assert [rank.ended for rank in early] == ["raised RuntimeError"] * 2
    assert checkpoints(early) == ["checkpoints/gen-0/step-6"]
    late = launch(classify, world_size, tmp_path, generation=1, first=2, resume="checkpoints/gen-0/step-6")
    assert [rank.ended for rank in late] == ["returned"] * world_size
    whole = batches(undisturbed)
    assert batches(late) == {step: whole[step] for step in range(7, 16)}
    losses = metric(undisturbed, "loss")
    assert metric(late, "loss") == pytest.approx({step: losses[step] for step in range(7, 16)}, rel=1e-3)
    assert late[0].value["rates"] == {step: undisturbed[0].value["rates"][step] for step in range(7, 16)}
    assert_same_end(late, undisturbed)


def slowly(ctx, total=100_000):
    net = torch.nn.Linear(2, 1)
    model, optimizer = ctx.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1))
    for _ in ctx.loop(total):
        loss = model(torch.ones(1, 2)).sum()
        ctx.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        ctx.report(step=ctx.step, rank=ctx.rank)
        time.sleep(0.002)


def after_step(step, ranks):
    def told(events):
        return ranks if any(event.kind is Kind.METRIC and event.step >= step for event in events) else ()

    return told


@pytest.mark.parametrize("told", [[1], [0], [0, 1, 2]])
def test_all_ranks_end_after_one_step_whoever_was_told(told, tmp_path):
    ranks = launch(slowly, 3, tmp_path, told=after_step(20, told))
    assert [rank.ended for rank in ranks] == ["generation-end"] * 3
    (path,) = checkpoints(ranks)
    reported = metric(ranks, "step")
    assert path == f"checkpoints/gen-0/step-{max(reported)}"
    assert list(reported) == list(range(1, max(reported) + 1)), "no report is lost"
    assert set(metric(ranks, "rank").values()) == {1.0}


def test_a_single_rank_ends_too(tmp_path):
    ranks = launch(slowly, 1, tmp_path, told=after_step(20, [0]))
    assert ranks[0].ended == "generation-end"
    assert checkpoints(ranks) == [f"checkpoints/gen-0/step-{max(metric(ranks, 'step'))}"]


def test_the_next_generation_goes_on_after_the_last_step(tmp_path):
    first = launch(slowly, 2, tmp_path, told=after_step(20, [0]))
    (path,) = checkpoints(first)
    last = max(metric(first, "step"))
    second = launch(slowly, 1, tmp_path, last + 5, generation=1, resume=path)
    assert second[0].ended == "returned", second[0].value
    assert list(metric(second, "step")) == list(range(last + 1, last + 6))


def test_a_stop_after_the_loop_is_too_late(tmp_path):
    ranks = launch(lingering, 2, tmp_path, told=after_step(5, [0, 1]))
    assert [rank.ended for rank in ranks] == ["returned"] * 2
    assert ranks[0].abilities[-1] == Abilities(graceful=False)


def lingering(ctx):
    slowly(ctx, 5)
    while not ctx._link.stopping.wait(0.1):
        pass


def leaving(ctx):
    for step in ctx.loop(50):
        ctx.report(step=step)
        if step == 7:
            break
    return ctx.step


def test_break_loses_no_report(tmp_path):
    ranks = launch(leaving, 2, tmp_path)
    assert [rank.value for rank in ranks] == [7, 7]
    assert metric(ranks, "step") == {step: step for step in range(1, 8)}


def failing(ctx, who):
    for step in ctx.loop(500):
        ctx.report(step=step)
        if step == 200 and ctx.rank == who:
            raise ValueError("after 200")


@pytest.mark.parametrize(("world_size", "who"), [(1, 0), (2, 0), (2, 1)])
def test_a_failure_loses_no_report(world_size, who, tmp_path):
    ranks = launch(failing, world_size, tmp_path, who)
    assert ranks[who].ended == "raised ValueError"
    metrics = Metrics()
    for event in sorted((event for rank in ranks for event in rank.events), key=lambda event: event.time):
        metrics.add(event)
    reported = metrics["step"].steps
    assert reported == list(range(1, len(reported) + 1))  # the other rank may have been ahead
    assert len(reported) >= 200
    assert metrics["step"].values == reported


def twice(ctx, fail_at=0):
    net = torch.nn.Linear(2, 1)
    model, optimizer = ctx.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1))
    x, taken = torch.ones(40, 2), []
    for phase in ("first", "second"):
        for batch in ctx.steps(x, 8, 2):
            ctx.backward(model(batch).mean())
            optimizer.step()
            optimizer.zero_grad()
            if ctx.boundary:
                taken.append((phase, ctx.step, ctx.epoch, ctx.epoch_end))
            if ctx.boundary and ctx.step == fail_at:
                ctx._loop.wait()
                raise RuntimeError("as asked")
    return taken, net.weight.sum().item()


def test_loops_one_after_the_other(tmp_path):
    (whole,) = launch(twice, 1, tmp_path)
    taken, weight = whole.value
    assert [step for _, step, _, _ in taken] == list(range(1, 21))
    assert [step for _, step, _, end in taken if end] == [5, 10, 15, 20]
    assert {epoch for _, _, epoch, _ in taken} == {1, 2}
    failed = launch(twice, 2, tmp_path, 14, every=4)
    assert checkpoints(failed)[-1] == "checkpoints/gen-0/step-12"
    ranks = launch(twice, 2, tmp_path, generation=1, resume="checkpoints/gen-0/step-12")
    assert ranks[0].value[0] == taken[12:]
    assert ranks[0].value[1] == pytest.approx(weight)
    ranks = launch(twice, 2, tmp_path, generation=2, resume="checkpoints/gen-0/step-8")
    assert ranks[0].value[0] == taken[8:]


def test_other_data_than_the_checkpoint_was_made_with(tmp_path):
    launch(classify, 1, tmp_path, 3, 32, 7, every=6)
    (rank,) = launch(classify, 1, tmp_path, 3, 16, generation=1, resume="checkpoints/gen-0/step-6")
    assert rank.ended == "raised UsageError"
    assert "batch_size was 32, is 16" in rank.value
    (rank,) = launch(classify, 1, tmp_path, 4, generation=1, resume="checkpoints/gen-0/step-6")
    assert rank.ended == "returned", "more epochs are welcome"
