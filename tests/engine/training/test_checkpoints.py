import resource
import signal
import time

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader

from cnai.events import Kind
from engine.ranks import checkpoints, launch, metric
from engine.trainings import classify

pytestmark = pytest.mark.usefixtures("starts_children")


def steps_of(ranks):
    return [int(path.rsplit("-", 1)[1]) for path in checkpoints(ranks)]


def test_every_so_many_steps(tmp_path):
    ranks = launch(classify, 2, tmp_path, every=4)
    assert [rank.ended for rank in ranks] == ["returned"] * 2
    assert checkpoints(ranks) == [f"checkpoints/gen-0/step-{step}" for step in (4, 8, 12)]
    assert [event.step for event in ranks[0].of(Kind.CHECKPOINT)] == [4, 8, 12]
    assert ranks[1].of(Kind.CHECKPOINT) == []
    assert all((tmp_path / path / ".metadata").is_file() for path in checkpoints(ranks))


def paced(ctx, steps=60):
    net = torch.nn.Linear(2, 1)
    ctx.prepare(net)
    begun = time.monotonic()
    for _ in ctx.loop(steps):
        time.sleep(0.01)
    return time.monotonic() - begun


@pytest.mark.parametrize("world_size", [1, 2])
def test_every_so_many_seconds(world_size, tmp_path):
    ranks = launch(paced, world_size, tmp_path, every="0.1s")
    steps = steps_of(ranks)
    assert 2 <= len(steps) <= ranks[0].value / 0.1 + 1
    assert steps == sorted(set(steps))


def asking(ctx):
    ctx.checkpoint()
    for step in ctx.loop(30):
        time.sleep(0.003)
        if step == 5 and ctx.rank == 1:
            ctx.checkpoint()
        if step == 30 and ctx.rank == 0:
            ctx.checkpoint()
    ctx.checkpoint()


def test_asked_for(tmp_path):
    ranks = launch(asking, 2, tmp_path)
    assert [rank.ended for rank in ranks] == ["returned"] * 2
    before, early, last = steps_of(ranks)
    assert before == 0
    assert 5 <= early < 30
    assert last == 30, "once, although asked for in the last step and after it"


def test_the_names_in_it_are_those_of_the_model(tmp_path):
    launch(classify, 2, tmp_path, every=15)
    names = FileSystemReader(tmp_path / "checkpoints/gen-0/step-15").read_metadata().state_dict_metadata
    assert {"model.hidden.weight", "model.norm.running_mean", "optimizer.state.out.weight.exp_avg"} <= names.keys()


def moving(ctx):
    """Weights move on at once after a checkpoint was asked for."""
    net = torch.nn.Linear(1000, 1000, bias=False)
    model, optimizer = ctx.prepare(net, torch.optim.SGD(net.parameters(), lr=1.0))
    torch.nn.init.zeros_(net.weight)
    for _ in ctx.loop(30):
        ctx.backward(-model(torch.ones(1, 1000)).sum())
        optimizer.step()
        optimizer.zero_grad()


def look(ctx):
    net = torch.nn.Linear(1000, 1000, bias=False)
    ctx.prepare(net, torch.optim.SGD(net.parameters(), lr=1.0))
    for _ in ctx.loop(13):
        return net.weight.unique().tolist()
    return None


def test_training_goes_on_without_touching_what_is_written(tmp_path):
    ranks = launch(moving, 2, tmp_path, every=12)
    assert steps_of(ranks) == [12, 24]
    (rank,) = launch(look, 1, tmp_path, generation=1, resume="checkpoints/gen-0/step-12")
    assert rank.value == [12.0]


def test_a_checkpoint_that_cant_be_written_stops_nothing(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where a folder should be")
    ranks = launch(classify, 2, tmp_path, every=4)
    assert [rank.ended for rank in ranks] == ["returned"] * 2
    assert checkpoints(ranks) == []
    (diagnosis,) = [event for rank in ranks for event in rank.of(Kind.DIAGNOSIS)]
    assert diagnosis.payload["summary"].startswith("checkpoint of step 4 could not be written: ")
    assert "previous checkpoint stays" in diagnosis.payload["hint"]
    assert "error" not in diagnosis.payload


def full_disk(ctx):
    """A rank's files may not grow, as if its disk were full."""
    if ctx.rank == 1:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    return moving(ctx)


def test_a_full_disk_in_one_rank(tmp_path):
    ranks = launch(full_disk, 2, tmp_path, every=10)
    assert [rank.ended for rank in ranks] == ["returned"] * 2
    assert checkpoints(ranks) == []
    (diagnosis,) = [event for rank in ranks for event in rank.of(Kind.DIAGNOSIS)]
    assert "File too large" in diagnosis.payload["summary"]
    assert list((tmp_path / "checkpoints/gen-0").iterdir()) == [], "what was written of it is removed"


def unblocked(ctx):
    """The second checkpoint of three finds a file in its place."""
    for step in ctx.loop(12):
        if step == 5 and ctx.rank == 0:
            folder = ctx._link.assignment.run_dir / "checkpoints/gen-0"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "step-8").write_text("")
        time.sleep(0.001)


def test_the_next_one_may_succeed(tmp_path):
    ranks = launch(unblocked, 2, tmp_path, every=4)
    assert steps_of(ranks) == [4, 12]
    assert len(ranks[0].of(Kind.DIAGNOSIS)) == 1


class Counter:
    """Something of the user's own with a state."""

    def __init__(self):
        self.count = 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def several(ctx, fail_at=0):
    """Two models, an average of one, parameters without gradients, and an own object."""
    torch.manual_seed(0)
    nets = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    unused = torch.nn.Linear(2, 2)
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    head = torch.nn.ModuleList([nets[1], unused])
    optimizer = torch.optim.AdamW([{"params": nets[0].parameters()}, {"params": head.parameters(), "lr": 0.1}])
    average, counter = torch.optim.swa_utils.AveragedModel(nets[0]), Counter()
    ctx.prepare(head, find_unused_parameters=True)
    body, frozen, average, optimizer, counter = ctx.prepare(nets[0], frozen, average, optimizer, counter)
    for step in ctx.loop(10):
        ctx.backward(nets[1](body(frozen(torch.ones(1, 2) * step))).sum())
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(nets[0])
        counter.count += 1
        if step == fail_at:
            ctx._loop.wait()
            raise RuntimeError("as asked")
    return [
        p.sum().item() for p in (*nets[0].parameters(), *nets[1].parameters(), *average.parameters())
    ], counter.count


def test_all_that_was_prepared_comes_back(tmp_path):
    (whole,) = launch(several, 1, tmp_path)
    assert whole.ended == "returned", whole.value
    launch(several, 1, tmp_path, 6, every=5)
    (resumed,) = launch(several, 1, tmp_path, generation=1, resume="checkpoints/gen-0/step-5")
    assert resumed.ended == "returned", resumed.value
    assert resumed.value[0] == pytest.approx(whole.value[0])
    assert resumed.value[1] == 10


def other_model(ctx):
    ctx.prepare(torch.nn.Sequential(torch.nn.Linear(2, 1)))
    return list(ctx.loop(100))


def other_objects(ctx):
    ctx.prepare(torch.nn.Linear(2, 1), Counter())
    return list(ctx.loop(100))


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (other_model, "does not fit the prepared objects, or is damaged: KeyError: 'it has no 0.weight, 0.bias'"),
        (
            other_objects,
            "the checkpoint holds 0 objects with a state besides models and optimizers, but 1 were prepared",
        ),
    ],
)
def test_other_objects_than_in_the_checkpoint(target, says, tmp_path):
    launch(paced, 1, tmp_path, 5, every=5)
    (rank,) = launch(target, 1, tmp_path, generation=1, resume="checkpoints/gen-0/step-5")
    assert says in rank.value


def test_a_damaged_checkpoint(tmp_path):
    launch(paced, 1, tmp_path, 5, every=5)
    for file in (tmp_path / "checkpoints/gen-0/step-5").glob("*.distcp"):
        file.write_bytes(b"")
    (rank,) = launch(paced, 1, tmp_path, generation=1, resume="checkpoints/gen-0/step-5")
    assert rank.ended == "raised StoreError"
    assert "or is damaged" in rank.value


def test_metrics_of_steps_survive_a_failure(tmp_path):
    ranks = launch(classify, 2, tmp_path, 3, 32, 7)
    assert [rank.ended for rank in ranks] == ["raised RuntimeError"] * 2
    assert list(metric(ranks, "loss")) == list(range(1, 8))
