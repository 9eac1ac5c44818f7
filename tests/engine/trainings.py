"""Trainings that the tests of the context run in their ranks."""

import torch
import torch.nn.functional as F

SAMPLES = 150


class Net(torch.nn.Module):
    """Has what depends on the number of ranks if one isn't careful: dropout and running statistics."""

    def __init__(self):
        super().__init__()
        self.hidden = torch.nn.Linear(8, 32)
        self.norm = torch.nn.BatchNorm1d(32)
        self.drop = torch.nn.Dropout(0.3)
        self.out = torch.nn.Linear(32, 3)

    def forward(self, x):
        return self.out(self.drop(self.norm(torch.relu(self.hidden(x)))))


def samples(count=SAMPLES):
    """Inputs, classes, and the samples' own numbers."""
    x = torch.randn(count, 8, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long(), torch.arange(count)


def classify(ctx, epochs=3, batch_size=32, fail_at=None, **options):
    """Train `Net`; returns steps with the samples that this rank saw, weights, and learning rates."""
    torch.manual_seed(5)
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5)
    model, optimizer, scheduler = ctx.prepare(net, optimizer, scheduler)
    seen, rates = [], {}
    for x, y, number in ctx.steps(samples(), batch_size, epochs, **options):
        loss = F.cross_entropy(model(x), y)
        ctx.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        ctx.report(loss=loss)
        seen.append((ctx.step, ctx.epoch, number.tolist()))
        if ctx.boundary:
            rates[ctx.step] = optimizer.param_groups[0]["lr"]
        if fail_at == ctx.step and ctx.boundary:
            ctx._loop.wait()  # what was due to be saved is saved
            raise RuntimeError("as asked")
    weights = {name: value.tolist() for name, value in net.state_dict().items()}
    return {"seen": seen, "weights": weights, "rates": rates, "step": ctx.step}


def batches(ranks):
    """Return {step: samples in order} over all ranks."""
    steps = {}
    for rank in ranks:
        for step, _, numbers in rank.value["seen"]:
            steps.setdefault(step, []).extend(numbers)
    return steps
