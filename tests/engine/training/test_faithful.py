"""Loops that people write give the numbers of the same loop in bare torch, at any number of ranks, also after a death.

Each program is written once, for a `Bare` loop over whole batches and for a context.
"""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from engine.ranks import checkpoints, launch

pytestmark = pytest.mark.usefixtures("starts_children")

SAMPLES, BATCH, EPOCHS = 96, 32, 3


class Bare:
    """The plain loop."""

    rank, world_size, boundary, epoch, step, epoch_end = 0, 1, True, 0, 0, False

    def prepare(self, *things):
        return things[0] if len(things) == 1 else things

    def backward(self, loss, **options):
        loss.backward(**options)

    def steps(self, tensors, **_):
        for self.epoch in range(1, EPOCHS + 1):
            for begin in range(0, SAMPLES, BATCH):
                self.epoch_end = begin + BATCH == SAMPLES
                self.step += 1
                yield tuple(tensor[begin : begin + BATCH] for tensor in tensors)

    def loop(self, total):
        for self.step in range(1, total + 1):
            yield self.step

    def report(self, **_):
        pass


class Ours:
    """A context, which may die after a step; everything that the program asks for is the context's."""

    def __init__(self, ctx, dies_after):
        self._ctx, self._dies_after = ctx, dies_after

    def __getattr__(self, name):
        return getattr(self._ctx, name)

    def steps(self, tensors, **options):
        return self._dying(self._ctx.steps(tensors, BATCH, EPOCHS, shuffle=False, **options))

    def loop(self, total):
        return self._dying(self._ctx.loop(total))

    def _dying(self, turns):
        for turn in turns:
            yield turn
            if self._dies_after == self._ctx.step and self._ctx._accumulation._boundary:
                self._ctx._loop.wait()
                raise RuntimeError("dead")


def data():
    x = torch.randn(SAMPLES, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def network(*layers):
    torch.manual_seed(5)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), *(layers or (torch.nn.Tanh(),)), torch.nn.Linear(8, 3)).double()


def weights(*nets):
    return {f"{at}.{name}": value.tolist() for at, net in enumerate(nets) for name, value in net.state_dict().items()}


# --- ctx.steps: one loss per step; what else they do with it is the point


def clips_the_norm(ctx):
    net = network()
    model, optimizer = ctx.prepare(net, torch.optim.SGD(net.parameters(), 0.5))
    for x, y in ctx.steps(data()):
        ctx.backward(F.cross_entropy(model(x), y))
        clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        model.zero_grad()
    return weights(net)


def clips_values(ctx):
    net = network()
    model, optimizer = ctx.prepare(net, torch.optim.SGD(net.parameters(), 0.5))
    for x, y in ctx.steps(data()):
        optimizer.zero_grad(set_to_none=False)
        ctx.backward(F.cross_entropy(model(x), y))
        for parameter in model.parameters():
            parameter.grad.data.clamp_(-0.01, 0.01)
        optimizer.step()
    return weights(net)


def scales(ctx):
    net = network()
    scaler = torch.amp.GradScaler("cpu", growth_interval=2)
    model, optimizer, scaler = ctx.prepare(net, torch.optim.Adam(net.parameters(), 0.05), scaler)
    for x, y in ctx.steps(data()):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y) * (torch.inf if ctx.step == 2 else 1)
        ctx.backward(scaler.scale(loss))
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    return {**weights(net), "scale": scaler.get_scale()}


def schedules(ctx):
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), 0.05)
    kinds = torch.optim.lr_scheduler
    warm = kinds.SequentialLR(
        optimizer, [kinds.LinearLR(optimizer, 0.1, 1, 4), kinds.ExponentialLR(optimizer, 0.8)], [4]
    )
    each_epoch = kinds.StepLR(optimizer, 1, 0.5)
    model, optimizer, warm, each_epoch = ctx.prepare(net, optimizer, warm, each_epoch)
    for x, y in ctx.steps(data()):
        ctx.backward(F.cross_entropy(model(x), y))
        optimizer.step()
        optimizer.zero_grad()
        warm.step()
        if ctx.epoch_end:
            each_epoch.step()
    return {**weights(net), "rate": optimizer.param_groups[0]["lr"]}


def averages(ctx):
    net = network()
    model, optimizer = ctx.prepare(net, torch.optim.SGD(net.parameters(), 0.5))
    ema = ctx.prepare(AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True))
    for x, y in ctx.steps(data()):
        ctx.backward(F.cross_entropy(model(x), y))
        optimizer.step()
        optimizer.zero_grad()
        ema.update_parameters(model)
    return weights(net, ema.module.module if hasattr(ema.module, "module") else ema.module) | {
        "n": ema.n_averaged.item()
    }


def has_two_losses(ctx):
    net = network()
    model, optimizer = ctx.prepare(net, torch.optim.SGD(net.parameters(), 0.5))
    for x, y in ctx.steps(data()):
        out = model(x)
        ctx.backward(F.cross_entropy(out, y), retain_graph=True)
        ctx.backward(out.pow(2).mean())
        optimizer.step()
        optimizer.zero_grad()
    return weights(net)


def has_hooks(ctx):
    net = network()
    net[0].weight.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
    _, optimizer = ctx.prepare(net, torch.optim.SGD(net.parameters(), 0.5))
    for x, y in ctx.steps(data()):
        ctx.backward(F.cross_entropy(net(x), y))  # not through DDP's wrapper
        optimizer.step()
        optimizer.zero_grad()
    return weights(net)


def steps_in_the_backward_pass(ctx):
    net = network()
    optimizers = {each: torch.optim.Adam([each], 0.05) for each in net.parameters()}
    model, *_ = ctx.prepare(net, *optimizers.values())

    def hook(parameter):
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for each in net.parameters():
        each.register_post_accumulate_grad_hook(hook)
    for x, y in ctx.steps(data()):
        ctx.backward(F.cross_entropy(model(x), y))
    return weights(net)


def has_a_closure(ctx):
    net = network()
    model, optimizer = ctx.prepare(net, torch.optim.Adam(net.parameters(), 0.05))
    for x, y in ctx.steps(data()):

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            ctx.backward(loss)
            return loss

        optimizer.step(closure)
    return weights(net)


def penalizes_the_inputs_gradient(ctx):
    net = network()
    model, optimizer = ctx.prepare(net, torch.optim.SGD(net.parameters(), 0.5))
    for x, y in ctx.steps(data()):
        x = x.clone().requires_grad_()
        out = model(x)
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        ctx.backward(F.cross_entropy(out, y) + (slope.norm(dim=1) - 1).pow(2).mean())
        optimizer.step()
        optimizer.zero_grad()
    return weights(net)


def normalizes_its_weights(ctx):
    net = network()
    torch.nn.utils.spectral_norm(net[0])
    model, optimizer = ctx.prepare(net, torch.optim.SGD(net.parameters(), 0.5))
    for x, y in ctx.steps(data()):
        ctx.backward(F.cross_entropy(model(x), y))
        optimizer.step()
        optimizer.zero_grad()
    return weights(net)


def distills(ctx):
    """Half of the network is frozen, and learns from a teacher."""
    net, teacher = network(), network().requires_grad_(requires_grad=False)
    net[0].requires_grad_(requires_grad=False)
    model, teacher, optimizer = ctx.prepare(net, teacher, torch.optim.AdamW(net[2].parameters(), 0.05, fused=True))
    for x, y in ctx.steps(data()):
        with torch.no_grad():
            wise = teacher(x * 2)
        out = model(x)
        ctx.backward(F.cross_entropy(out, y) + F.kl_div(out.log_softmax(1), wise.softmax(1), reduction="batchmean"))
        optimizer.step()
        optimizer.zero_grad()
    return weights(net, teacher)


IN_STEPS = [
    clips_the_norm,
    clips_values,
    scales,
    schedules,
    averages,
    has_two_losses,
    has_hooks,
    steps_in_the_backward_pass,
    has_a_closure,
    penalizes_the_inputs_gradient,
    normalizes_its_weights,
    distills,
]


# --- ctx.loop: the code's own order of passes and steps counts


def mine(ctx, batch=slice(None)):
    x, y = data()
    return x[batch][ctx.rank :: ctx.world_size], y[batch][ctx.rank :: ctx.world_size]


def gan(ctx):
    """The tutorial's: the discriminator learns from two backward passes, the generator through the discriminator."""
    generator, judge = (
        network(),
        torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double(),
    )
    G, D, og, od = ctx.prepare(
        generator, judge, torch.optim.Adam(generator.parameters(), 0.01), torch.optim.Adam(judge.parameters(), 0.01)
    )
    x, y = mine(ctx)
    real = F.one_hot(y, 3).double()
    for _ in ctx.loop(9):
        D.zero_grad()
        ctx.backward(F.softplus(-D(real)).mean())
        fake = G(x)
        ctx.backward(F.softplus(D(fake.detach())).mean())
        od.step()
        G.zero_grad()
        ctx.backward(F.softplus(-D(fake)).mean())
        og.step()
    return weights(generator, judge)


def accumulates_for_two_optimizers(ctx):
    net = network()
    model, a, b = ctx.prepare(
        net, torch.optim.SGD([net[0].weight, net[2].weight], 0.5), torch.optim.AdamW([net[0].bias, net[2].bias], 0.1)
    )
    for _ in ctx.loop(9):
        for part in range(2):
            x, y = mine(ctx, slice(part * 48, part * 48 + 48))
            with model.no_sync() if part == 0 and hasattr(model, "no_sync") else nullcontext():
                (F.cross_entropy(model(x), y) / 2).backward()
        for optimizer in (a, b):
            optimizer.step()
            optimizer.zero_grad()
    return weights(net)


def accumulates_over_steps(ctx):
    """A checkpoint waits for the optimizer's step, since it holds no gradients."""
    net = network()
    model, optimizer = ctx.prepare(net, torch.optim.SGD(net.parameters(), 0.5))
    x, y = mine(ctx)
    for step in ctx.loop(9):
        ctx.backward(F.cross_entropy(model(x), y) / 2)
        if step % 2:
            optimizer.step()
            optimizer.zero_grad()
    return weights(net)


def sam(ctx):
    net = network()
    model, optimizer = ctx.prepare(net, torch.optim.SGD(net.parameters(), 0.1, momentum=0.9))
    x, y = mine(ctx)
    for _ in ctx.loop(9):
        ctx.backward(F.cross_entropy(model(x), y))
        with torch.no_grad():
            away = [0.5 * parameter.grad for parameter in net.parameters()]
            for parameter, distance in zip(net.parameters(), away, strict=True):
                parameter.add_(distance)
        optimizer.zero_grad()
        ctx.backward(F.cross_entropy(model(x), y))
        with torch.no_grad():
            for parameter, distance in zip(net.parameters(), away, strict=True):
                parameter.sub_(distance)
        optimizer.step()
        optimizer.zero_grad()
    return weights(net)


def lbfgs(ctx):
    net = network()
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=4, line_search_fn="strong_wolfe")
    model, optimizer = ctx.prepare(net, optimizer)
    x, y = mine(ctx)
    for _ in ctx.loop(9):

        def closure():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            ctx.backward(loss)
            return loss

        optimizer.step(closure)
    return weights(net)


def retains(ctx):
    net = network()
    model, optimizer = ctx.prepare(net, torch.optim.SGD(net.parameters(), 0.5))
    x, y = mine(ctx)
    for _ in ctx.loop(9):
        out, again = model(x), model(x.flip(1))
        ctx.backward(F.cross_entropy(out, y), retain_graph=True)
        ctx.backward(out.pow(2).mean())
        ctx.backward(again.pow(2).mean())
        optimizer.step()
        optimizer.zero_grad()
    return weights(net)


def updates_by_hand(ctx):
    net = network()
    model = ctx.prepare(net)
    x, y = mine(ctx)
    for step in ctx.loop(9):
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= 1 / step * parameter.grad
    return weights(net)


IN_LOOP = [gan, accumulates_for_two_optimizers, accumulates_over_steps, sam, lbfgs, retains, updates_by_hand]


def run(ctx, program, dies_after=0):
    return program(Ours(ctx, dies_after))


def assert_same(ranks, expected):
    assert [rank.ended for rank in ranks] == ["returned"] * len(ranks), ranks[0].value
    for rank in ranks:
        assert rank.value.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                torch.tensor(rank.value[name]).double(), torch.tensor(value).double(), rtol=1e-5, atol=1e-7, msg=name
            )


@pytest.mark.parametrize("program", [*IN_STEPS, *IN_LOOP], ids=lambda program: program.__name__)
def test_numbers_are_those_of_the_plain_loop(program, tmp_path):
    expected = program(Bare())
    for world_size in (1, 2, 4):
        assert_same(launch(run, world_size, tmp_path / str(world_size), program), expected)
    died = launch(run, 2, tmp_path, program, 6, every=4)
    assert [rank.ended for rank in died] == ["raised RuntimeError"] * 2, died[0].value
    late = launch(
        run, 4 if program in IN_STEPS else 2, tmp_path, program, generation=1, first=2, resume=checkpoints(died)[0]
    )
    assert_same(late, expected)


def evaluates(ctx, shards=4):
    """Evaluates behind `ctx.epoch_end`, as the first notebook does; several layers keep statistics."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8, momentum=0.5), torch.nn.Tanh(), Codebook(), torch.nn.Linear(8, 3)
    ).double()
    model, optimizer = ctx.prepare(net, torch.optim.SGD(net.parameters(), 0.1))
    x, y = data()
    x *= torch.linspace(0.2, 3, SAMPLES)[:, None]
    seen = {}
    for a, b in ctx.steps((x, y), BATCH, EPOCHS, shuffle=False, shards=shards):
        ctx.backward(F.cross_entropy(model(a), b))
        optimizer.step()
        optimizer.zero_grad()
        if ctx.epoch_end:
            net.eval()
            with torch.no_grad():
                seen[f"epoch {ctx.epoch}"] = F.cross_entropy(net(x), y).item()
            net.train()
            seen |= {f"{ctx.epoch} {name}": value.tolist() for name, value in net.named_buffers()}
    assert all(value.tolist() == seen[f"{EPOCHS} {name}"] for name, value in net.named_buffers())
    return seen


class Codebook(torch.nn.Module):
    """Has buffers of its own that a forward pass changes: one in place, one replaced, a counter and a flag."""

    def __init__(self):
        super().__init__()
        self.register_buffer("inside", torch.zeros(8))
        self.register_buffer("replaced", torch.zeros(8))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("used", torch.tensor(False))
        self.register_buffer("constant", torch.ones(8))

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.inside.lerp_(x.mean(0), 0.5)
                self.replaced = 0.5 * self.replaced + 0.5 * x.mean(0)
                self.count += 1
                self.used.fill_(True)
        return x - self.inside


class Whole(Bare):
    def steps(self, tensors, *_, **__):
        return super().steps(tensors)


def test_statistics_behind_epoch_end_are_those_of_the_finished_step(tmp_path):
    (alone,) = launch(evaluates, 1, tmp_path / "1")
    assert alone.ended == "returned", alone.value
    assert alone.value["3 3.count"] == 9
    assert alone.value["3 3.used"] is True
    for world_size in (2, 3, 4):
        assert_same(launch(evaluates, world_size, tmp_path / str(world_size)), alone.value)
    assert_same(launch(evaluates, 1, tmp_path / "whole", 1), evaluates(Whole()))
