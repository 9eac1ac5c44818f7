import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import cnai
from cnai.engine.messages import Abilities
from cnai.errors import UsageError
from cnai.events import Kind
from engine.ranks import checkpoints, free_port, launch, metric
from engine.trainings import Net, batches, classify, samples

pytestmark = pytest.mark.usefixtures("starts_children")

STEPS_PER_EPOCH = 5  # 150 samples: four batches of 32 and one of 22


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """`classify` in one rank, which the others must agree with."""
    (rank,) = launch(classify, 1, tmp_path_factory.mktemp("alone"))
    assert rank.ended == "returned", rank.value
    return rank


def plain():
    """The same training in bare torch, batch by batch, without dropout and normalization."""
    torch.manual_seed(5)
    net = torch.nn.Linear(8, 3)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = {}
    x, y, _ = samples()
    for step in range(STEPS_PER_EPOCH):
        part = slice(step * 32, step * 32 + 32)
        loss = F.cross_entropy(net(x[part]), y[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses[step + 1] = loss.item()
    return losses


def linear(ctx):
    torch.manual_seed(5 + ctx.rank)  # rank 0's weights count
    net = torch.nn.Linear(8, 3)
    model, optimizer = ctx.prepare(net, torch.optim.Adam(net.parameters(), lr=0.01))
    for x, y, _ in ctx.steps(samples(), 32, shuffle=False):
        optimizer.zero_grad()  # before the backward pass, the other idiom
        loss = F.cross_entropy(model(x), y)
        ctx.backward(loss)
        optimizer.step()
        ctx.report(loss=loss)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_micro_batches_add_up_to_what_bare_torch_does_with_the_batch(world_size, tmp_path):
    ranks = launch(linear, world_size, tmp_path)
    assert metric(ranks, "loss") == pytest.approx(plain(), rel=1e-5)


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_number_of_ranks_changes_nothing(world_size, alone, tmp_path):
    ranks = launch(classify, world_size, tmp_path)
    assert [rank.ended for rank in ranks] == ["returned"] * world_size
    assert batches(ranks) == batches([alone])
    assert metric(ranks, "loss") == pytest.approx(metric([alone], "loss"), rel=1e-4)
    for rank in ranks:
        assert rank.value["rates"] == alone.value["rates"]
        assert rank.value["weights"] == ranks[0].value["weights"]
        for name in ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked", "out.weight"):
            torch.testing.assert_close(
                torch.tensor(rank.value["weights"][name]),
                torch.tensor(alone.value["weights"][name]),
                rtol=1e-3,
                atol=1e-4,
            )


def test_steps_epochs_and_gated_schedulers_count_optimizer_steps(alone):
    assert alone.value["step"] == 3 * STEPS_PER_EPOCH
    assert {(step, epoch) for step, epoch, _ in alone.value["seen"]} == {
        (step, (step - 1) // STEPS_PER_EPOCH + 1) for step in range(1, 16)
    }
    assert alone.value["rates"] == {step: 0.01 * 0.5 ** (step // 4) for step in range(1, 16)}
    assert sorted(metric([alone], "loss")) == list(range(1, 16))


def test_the_last_partial_batch_is_weighted_by_its_size(alone):
    sizes = {step: len(numbers) for step, numbers in batches([alone]).items()}
    assert [sizes[step] for step in range(1, 6)] == [32, 32, 32, 32, 22]


def test_the_node_hears_what_the_code_can_do(alone):
    assert alone.abilities == [Abilities(graceful=True, max_ranks=4), Abilities(graceful=False)]


def test_too_many_ranks(tmp_path):
    ranks = launch(classify, 3, tmp_path, 1, 32, None, first=1)
    assert [rank.ended for rank in ranks] == ["returned"] * 3
    ranks = launch(too_few_shards, 3, tmp_path)
    assert [rank.ended for rank in ranks] == ["raised UsageError"] * 3
    assert "3 ranks can't share 2 shards; start at most 2 ranks, or pass shards=3" in ranks[0].value


def too_few_shards(ctx):
    classify(ctx, shards=2)


def use(code):
    """Run a loop body in this process; outside a run the context works too."""
    ctx = cnai.context()
    torch.manual_seed(0)
    net = Net()
    model, optimizer = ctx.prepare(net, torch.optim.Adam(net.parameters()))
    for x, y, _ in ctx.steps(samples(), 32):
        code(ctx, net, optimizer, F.cross_entropy(model(x), y))
    return ctx


def plain_backward(ctx, net, optimizer, loss):
    loss.backward()
    optimizer.step()


def not_a_mean(ctx, net, optimizer, loss):
    ctx.backward(loss.expand(3))


def detached(ctx, net, optimizer, loss):
    ctx.backward(loss.detach())


def not_a_tensor(ctx, net, optimizer, loss):
    ctx.backward(loss.item())


def a_loop_in_the_loop(ctx, net, optimizer, loss):
    next(ctx.steps(samples(), 32))


def prepared_late(ctx, net, optimizer, loss):
    ctx.prepare(torch.nn.Linear(1, 1))


def reported_vector(ctx, net, optimizer, loss):
    ctx.report(loss=loss.expand(3))


def reported_text(ctx, net, optimizer, loss):
    ctx.report(loss="low")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (plain_backward, r"write ctx.backward\(loss\) instead of loss.backward\(\)"),
        (not_a_mean, r"mean loss of the micro-batch.*given: a tensor of shape \(3,\)"),
        (detached, r"given: a tensor of shape \(\) without a gradient"),
        (not_a_tensor, "given: float"),
        (a_loop_in_the_loop, "for evaluation iterate over the data directly"),
        (prepared_late, "ctx.prepare was called inside a loop"),
        (reported_vector, r"given: loss of shape \(3,\)"),
        (reported_text, "given: loss='low'"),
    ],
)
def test_mistakes_in_the_loop(code, says):
    with pytest.raises(UsageError, match=says):
        use(code)


def numbers(**given):
    """Options of ctx.steps, with the others as they should be."""
    ctx = cnai.context()
    for _ in ctx.steps(samples(), **{"batch_size": 50, "epochs": 1, "shards": 2, "seed": 0, **given}):
        pass
    return ctx.step


def test_whole_numbers_of_other_libraries():
    for kind in (np.int64, np.uint8, torch.tensor, lambda value: np.array([value])[0]):
        assert numbers(batch_size=kind(50), epochs=kind(2), shards=kind(2), seed=kind(3)) == 6
        assert [*cnai.context().loop(kind(2), seed=kind(1))] == [1, 2]


@pytest.mark.parametrize("name", ["batch_size", "epochs", "shards", "seed"])
def test_values_that_are_no_whole_numbers(name):
    for value in (2.0, True, np.True_, "2", torch.tensor(2.5), torch.tensor([1, 2]), torch.tensor(1) > 0, -1, 0, None):
        if (name == "shards" and value is None) or (name == "seed" and type(value) is int):
            continue
        with pytest.raises(UsageError, match=rf"^{name} must be a whole number.*; given: ") as error:
            numbers(**{name: value})
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=r"^total_steps must be a whole number from 0; given: 2.5"):
        cnai.context().loop(2.5)


@pytest.mark.parametrize("first", ["scheduler", "prepare"])
def test_what_is_prepared_takes_effect_once_per_step(first):
    ctx, net = cnai.context(), torch.nn.Linear(8, 3)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    if first == "prepare":
        ctx.prepare(net, optimizer)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    average = torch.optim.swa_utils.AveragedModel(net)
    keys = scheduler.state_dict().keys()
    ctx.prepare(*(() if first == "prepare" else (net, optimizer)), scheduler, average)
    for x, y, _ in ctx.steps(samples(), 32):
        before = net.weight.clone()
        ctx.backward(F.cross_entropy(net(x), y))
        optimizer.step()
        assert torch.equal(before, net.weight) is not ctx.boundary
        optimizer.zero_grad()
        scheduler.step()
        average.update_parameters(net)
    assert scheduler.get_last_lr() == [0.5**STEPS_PER_EPOCH]
    assert average.n_averaged == STEPS_PER_EPOCH
    assert scheduler.state_dict().keys() - keys <= {"_is_initial"}
    optimizer.step()  # outside the loop nothing is held back


def test_an_optimizer_that_was_not_prepared():
    ctx = cnai.context()
    model = ctx.prepare(torch.nn.Linear(8, 3))
    with pytest.raises(UsageError, match=r"model, optimizer = ctx.prepare\(model, optimizer\)"):
        for x, y, _ in ctx.steps(samples(), 32):
            ctx.backward(F.cross_entropy(model(x), y))


@pytest.mark.parametrize(
    ("thing", "says"),
    [
        ([1, 2], "given: list; ctx.steps takes the dataset"),
        (3, "given: int"),
        (torch.optim.SGD(torch.nn.Linear(1, 1).parameters()), "SGD has parameters of a model that is not prepared"),
    ],
)
def test_what_cant_be_prepared(thing, says):
    with pytest.raises(UsageError, match=says):
        cnai.context().prepare(thing)


def test_a_returned_model_travels():
    import cloudpickle

    ctx = use(lambda ctx, net, optimizer, loss: None)
    net = ctx._state.nets[0]
    assert len(cloudpickle.dumps(net)) < 20_000


def test_outside_a_run_reports_are_kept():
    def train(ctx, net, optimizer, loss):
        ctx.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        ctx.report(loss=loss)

    ctx = use(train)
    ctx.report(after=1)
    assert (ctx.rank, ctx.world_size, ctx.local_rank, ctx.generation, ctx.run_id) == (0, 1, 0, 0, "")
    assert [step for step, _ in ctx.history["loss"]] == [1, 2, 3, 4, 5]
    assert ctx.history["after"] == [(5, 1.0)]
    ctx.checkpoint()  # nothing to save to, no error
    assert cnai.context() is not ctx


def some_report(ctx):
    for step in ctx.loop(40):
        ctx.report(mean=ctx.rank * 10 + step)
        if ctx.rank == 0 and step % 10 == 0:
            ctx.report(only_first=step)
        if ctx.rank == 1 and step == 40:
            ctx.report(only_second=7)
    ctx.report(after=ctx.rank)


def test_reports_are_means_over_the_ranks_that_reported(tmp_path):
    ranks = launch(some_report, 3, tmp_path)
    assert [rank.ended for rank in ranks] == ["returned"] * 3
    assert metric(ranks, "mean") == {step: 10.0 + step for step in range(1, 41)}
    assert metric(ranks, "only_first") == {step: step for step in (10, 20, 30, 40)}
    assert metric(ranks, "only_second") == {40: 7}
    assert metric(ranks, "after") == {40: 0}
    assert all(event.rank == 0 for rank in ranks for event in rank.of(Kind.METRIC))


def weighted(ctx):
    for _, _, numbers in ctx.steps(samples(), 32, shuffle=False):
        ctx.report(mean=numbers.double().mean())


def test_reports_are_weighted_by_samples(tmp_path):
    ranks = launch(weighted, 3, tmp_path)
    expected = {step: (min(step * 32, 150) + (step - 1) * 32 - 1) / 2 for step in range(1, 6)}
    assert metric(ranks, "mean") == pytest.approx(expected)


TORCHRUN = """
import cnai, os, torch
from engine.trainings import classify
ctx = cnai.context()
value = classify(ctx)
losses = sum(v for _, v in ctx.history.get("loss", []))
# One write: both ranks share the pipe.
os.write(1, f"RESULT {ctx.rank} {ctx.world_size} {value['step']} {losses:.4f}\\n".encode())
"""


@pytest.mark.usefixtures("starts_processes")
def test_under_torchrun(alone, tmp_path, monkeypatch):
    script = tmp_path / "train.py"
    script.write_text(TORCHRUN)
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
    done = subprocess.run(
        [sys.executable, *command, f"--master-port={free_port()}", str(script)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = sorted(line.split() for line in done.stdout.splitlines() if line.startswith("RESULT"))
    assert [line[1:4] for line in lines] == [["0", "2", "15"], ["1", "2", "15"]], done.stderr
    assert float(lines[0][4]) == pytest.approx(sum(metric([alone], "loss").values()), rel=1e-4)


def test_nothing_is_saved_that_was_not_asked_for(alone):
    assert checkpoints([alone]) == []
