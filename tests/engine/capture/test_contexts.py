"""A context that was created in the notebook becomes the rank's own; objects that it prepared there don't travel."""

import pickle
import sys
from pathlib import Path

import pytest

import cnai
from cnai.engine.capture import capture_cell, capture_function, load
from cnai.errors import CaptureError
from engine.ranks import launch

TRAVELS = {
    "global": "def fit(): return ctx.world_size, ctx is cnai.context()",
    "default": "def fit(ctx=ctx): return ctx.world_size, ctx is cnai.context()",
    "closure": (
        "def make(held):\n  def fit(): return held.world_size, held is cnai.context()\n  return fit\nfit = make(ctx)"
    ),
    "attribute": (
        "class T:\n  def __init__(self): self.ctx = ctx\n  def go(self): return self.ctx.world_size, self.ctx is ctx\n"
        "fit = T().go"
    ),
    "list": "box = {'a': [ctx]}\ndef fit(): return box['a'][0].world_size, box['a'][0] is cnai.context()",
    "method": "report = ctx.report\ndef fit(): return ctx.world_size, report.__self__ is cnai.context()",
    "module": "import holder\ndef fit(): return holder.ctx.world_size, holder.ctx is cnai.context()",
    "of a module": "from holder import ctx as held\ndef fit(): return held.world_size, held is cnai.context()",
    "after a trial": (
        "import torch\nfor _ in ctx.loop(2): ctx.report(loss=1.0)\nctx.prepare(torch.nn.Linear(1, 1))\n"
        "def fit(): return ctx.world_size, ctx.step == 0 and ctx is cnai.context()"
    ),
}


def _load_and_run(_, payload):
    sys.modules.pop("holder", None)  # a rank doesn't have the notebook's modules
    return load(payload, None)()


@pytest.mark.parametrize("case", TRAVELS)
def test_becomes_the_ranks_own(notebook, tmp_path, starts_children, case):
    Path("holder.py").write_text("import cnai\nctx = cnai.context()\n")
    notebook.cell("import cnai\nctx = cnai.context()\n" + TRAVELS[case])
    ranks = launch(_load_and_run, 2, tmp_path, capture_function(notebook["fit"]).payload)
    assert [(rank.ended, rank.value) for rank in ranks] == [("returned", (2, True))] * 2


PREPARED = {
    "model": "model",
    "optimizer": "optimizer",
    "scheduler": "scheduler",
    "inside": "[*box['all']]",
}


@pytest.mark.parametrize("case", PREPARED)
def test_prepared_objects_are_refused_by_name(notebook, case):
    notebook.cell(
        "import cnai, torch\nctx = cnai.context()\n"
        "net = torch.nn.Linear(1, 1)\nsgd = torch.optim.SGD(net.parameters())\n"
        "model, optimizer, scheduler = ctx.prepare(net, sgd, torch.optim.lr_scheduler.StepLR(sgd, 1))\n"
        f"box = {{'all': model}}\ndef fit(): return {PREPARED[case]}"
    )
    name = "box['all']" if case == "inside" else case
    expected = f"{name!r} .* prepared it in this notebook.*create and prepare it inside fit"
    with pytest.raises(CaptureError, match=expected.replace("[", r"\[")):
        capture_function(notebook["fit"])
    with pytest.raises(CaptureError, match=r"'model' .* prepared it in this notebook"):
        capture_cell("model(1)", notebook.names)


def test_a_context_in_a_group_stays_in_its_process(tmp_path, starts_children):
    def fails(ctx):
        with pytest.raises(TypeError, match=r"call cnai\.context\(\)"):
            pickle.dumps(ctx)

    assert [rank.ended for rank in launch(fails, 2, tmp_path)] == ["returned"] * 2
    assert pickle.loads(pickle.dumps(cnai.context())).world_size == 1
