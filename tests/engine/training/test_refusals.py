"""Loops in `ctx.steps` that would give other numbers than the plain loop are refused in their first step, by name."""

import pytest
import torch
import torch.nn.functional as F

import cnai
from cnai.errors import UsageError
from engine.ranks import launch
from engine.trainings import samples

pytestmark = pytest.mark.usefixtures("starts_children")


class Parts:
    """What a loop body may use."""

    def __init__(self, ctx, shards=None):
        self.ctx = ctx
        torch.manual_seed(0)
        self.net = torch.nn.Linear(8, 3)
        self.teacher = torch.nn.Linear(8, 3).requires_grad_(requires_grad=False)
        self.sgd = torch.optim.SGD(self.net.parameters(), 0.1)
        self.model, _, _ = ctx.prepare(self.net, self.sgd, self.teacher)
        self.scaler = torch.amp.GradScaler("cpu")
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.sgd, 3)
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(self.sgd)
        self.average = torch.optim.swa_utils.AveragedModel(self.net)
        self.other = torch.optim.Adam(self.net.parameters())
        self.lbfgs = ctx.prepare(torch.optim.LBFGS(self.net.parameters()))

    def train(self, body):
        for index, (x, y, _) in enumerate(self.ctx.steps(samples(), 32)):
            self.index, self.x, self.y = index, x, y
            self.loss = F.cross_entropy(self.model(self.x), self.y)
            body(self)

    def closure(self):
        loss = F.cross_entropy(self.model(self.x), self.y)
        self.ctx.backward(loss)
        return loss


def unprepared_scaler(p):
    p.ctx.backward(p.scaler.scale(p.loss))
    p.scaler.step(p.sgd)


def unprepared_scheduler(p):
    p.ctx.backward(p.loss)
    p.sgd.step()
    p.scheduler.step()


def unprepared_plateau(p):
    p.ctx.backward(p.loss)
    p.sgd.step()
    p.plateau.step(p.loss.item())


def unprepared_average(p):
    p.ctx.backward(p.loss)
    p.sgd.step()
    p.average.update_parameters(p.model)


def unprepared_optimizer(p):
    p.ctx.backward(p.loss)
    p.other.step()


def steps_every_fourth_time(p):
    p.ctx.backward(p.loss / 4)
    if p.index % 4 == 0:
        p.sgd.step()
        p.sgd.zero_grad()


def steps_after_four(p):
    p.ctx.backward(p.loss / 4)
    if (p.index + 1) % 4 == 0:
        p.sgd.step()
        p.sgd.zero_grad()


def steps_after_three(p):
    p.ctx.backward(p.loss / 3)
    if (p.index + 1) % 3 == 0:
        p.sgd.step()
        p.sgd.zero_grad()


def accumulates_over_steps(p):
    p.ctx.backward(p.loss)
    if p.ctx.boundary and p.ctx.step % 4 == 0:
        p.sgd.step()
        p.sgd.zero_grad()


def sharpness_aware(p):
    p.ctx.backward(p.loss)
    with torch.no_grad():
        for each in p.net.parameters():
            each.add_(each.grad)
    p.sgd.zero_grad()
    p.closure()
    p.sgd.step()


def clears_between_backward_passes(p):
    p.ctx.backward(p.loss)
    p.net.zero_grad()
    p.closure()
    p.sgd.step()


def steps_between_backward_passes(p):
    p.ctx.backward(p.loss)
    p.sgd.step()
    p.closure()
    p.sgd.step()


def computes_the_loss_again_and_again(p):
    p.lbfgs.step(p.closure)


def moves_the_teacher(p):
    with torch.no_grad():
        for theirs, ours in zip(p.teacher.parameters(), p.net.parameters(), strict=True):
            theirs.lerp_(ours, 0.1)
    p.ctx.backward(p.loss)
    p.sgd.step()


def adds_a_plain_backward(p):
    p.ctx.backward(p.loss)
    F.cross_entropy(p.model(p.x), p.y).backward()
    p.sgd.step()


def plain_backward_first(p):
    F.cross_entropy(p.model(p.x), p.y).backward()
    p.ctx.backward(p.loss)
    p.sgd.step()


def adds_noise(p):
    p.ctx.backward(p.loss)
    for each in p.net.parameters():
        each.grad += torch.randn_like(each.grad)
    p.sgd.step()


def skips_the_last(p):
    if p.index % 4 != 3:
        p.ctx.backward(p.loss)
        p.sgd.step()


ALONE = [
    (unprepared_scaler, "GradScaler is not prepared; pass it to ctx.prepare as well"),
    (unprepared_scheduler, "StepLR is not prepared"),
    (unprepared_plateau, "ReduceLROnPlateau is not prepared"),
    (unprepared_average, "AveragedModel is not prepared"),
    (unprepared_optimizer, "Adam is not prepared"),
    (steps_every_fourth_time, r"optimizer.step\(\) was left out at the end|was left out after"),
    (steps_after_four, r"left out after ctx.backward\(loss\); ctx.steps accumulates by itself.*don't divide"),
    (accumulates_over_steps, r"neither optimizer.step\(\) nor zero_grad\(\); .*as batch_size"),
    (sharpness_aware, r"changed between two backward passes of a step; use ctx.loop"),
    (clears_between_backward_passes, "weights or gradients were changed between two backward passes"),
    (steps_between_backward_passes, "weights or gradients were changed between two backward passes"),
    (computes_the_loss_again_and_again, r"LBFGS computes the loss several times per step.*use ctx.loop\(total_steps\)"),
    (moves_the_teacher, "weights were changed in the middle of a step; write that under `if ctx.boundary:`"),
    (adds_a_plain_backward, r"gradients were written by something other than ctx.backward\(loss\)"),
    (plain_backward_first, r"loss.backward\(\) was called; write ctx.backward|written by something other"),
    (adds_noise, "gradients were written by something other"),
    (skips_the_last, r"the last part of a batch had no ctx.backward\(loss\); multiply a loss"),
]


@pytest.mark.parametrize(("body", "says"), ALONE, ids=lambda each: getattr(each, "__name__", ""))
def test_refused_in_the_first_step(body, says):
    parts = Parts(cnai.context())
    with pytest.raises(UsageError, match=says) as error:
        parts.train(body)
    assert parts.ctx.step <= 1 + (body is accumulates_over_steps)
    assert "\n" not in str(error.value)


def in_rank(ctx, body):
    Parts(ctx).train(body)


EACH_RANK_HAS_ONE_PART = [
    (unprepared_scaler, "GradScaler is not prepared"),
    (unprepared_scheduler, "StepLR is not prepared"),
    (steps_every_fourth_time, "neither"),
    (computes_the_loss_again_and_again, "LBFGS computes the loss several times"),
    (adds_noise, "the ranks have different gradients in their first step"),
    (steps_between_backward_passes, "weights or gradients were changed between two backward passes"),
]


@pytest.mark.parametrize(("body", "says"), EACH_RANK_HAS_ONE_PART, ids=lambda each: getattr(each, "__name__", ""))
def test_refused_even_if_each_rank_has_one_part_of_a_batch(body, says, tmp_path):
    ranks = launch(in_rank, 4, tmp_path, body)
    assert {rank.ended for rank in ranks} == {"raised UsageError"}
    assert says in ranks[0].value


def test_what_other_loops_do_later_is_their_own_affair():
    """A loop that failed, whose frame a traceback keeps, doesn't watch what others prepare."""
    with pytest.raises(UsageError) as kept:
        Parts(cnai.context()).train(unprepared_scheduler)
    net = torch.nn.Linear(8, 3)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    torch.optim.swa_utils.AveragedModel(net).update_parameters(net)
    optimizer.step()
    scheduler.step()
    assert kept.value
    assert scheduler.get_last_lr() == pytest.approx([0.01])
