"""A result travels wherever its tensors and models are in it."""

import collections
import copy
import dataclasses

import pytest
import torch

from cnai.engine import results
from cnai.errors import ResultError
from engine.ranks import launch


@dataclasses.dataclass
class Outcome:
    model: object
    loss: object = None


class Holder:
    def __init__(self, model):
        self.model = model
        self.itself = self


Named = collections.namedtuple("Named", "model loss")
HOLDERS = {
    "bare": lambda model: model,
    "dataclass": Outcome,
    "namedtuple": lambda model: Named(model, 0.5),
    "ordered": lambda model: collections.OrderedDict(model=model),
    "set": lambda model: {model},
    "attribute": Holder,
    "nested": lambda model: {"all": [(Outcome(model),)]},
    "default": lambda model: collections.defaultdict(list, a=[model]),
    "dict key": lambda model: {model: 1},
    "method": lambda model: model.forward,
}


def models(value):
    """Return the models inside a value from the table."""
    if isinstance(value, torch.nn.Module):
        return [value]
    if hasattr(value, "__self__"):
        return [value.__self__]
    parts = (
        value if isinstance(value, list | tuple | set) else [*value, *value.values()] if isinstance(value, dict) else []
    )
    return [model for part in (*parts, *([value.model] if hasattr(value, "model") else [])) for model in models(part)]


def _prepared(ctx):
    model = ctx.prepare(torch.nn.Linear(2, 2))
    assert type(model).__name__ == "DistributedDataParallel"
    return {name: results.pack(holder(model)) for name, holder in HOLDERS.items()}


def test_prepared_models_come_back_as_the_author_wrote_them(tmp_path, starts_children):
    packed = launch(_prepared, 2, tmp_path)[0].value
    for name, data in packed.items():
        found = models(results.unpack(data))
        assert (name, {type(model) for model in found}) == (name, {torch.nn.Linear})


def test_a_result_that_contains_itself():
    ring = {"x": torch.ones(1)}
    ring["self"] = [ring]
    back = results.unpack(results.pack(ring))
    assert back["self"][0] is back and back["x"].item() == 1.0


def test_views_travel_without_the_rest_of_their_storage():
    big = torch.arange(1_000_000.0)
    views = {
        "slice": big[3:6],
        "strided": big[::400_000],
        "in a list": [big[1:4]],
        "in a parameter": torch.nn.Parameter(big[:3]),
        "in a model": _small(big),
        "half": big.view(2, -1)[:, :2],
    }
    for name, view in views.items():
        data = results.pack(view)
        assert (name, len(data) < 5000) == (name, True)
    assert results.unpack(results.pack(views["strided"])).tolist() == [0.0, 400_000.0, 800_000.0]
    assert len(results.pack(torch.ones(1).expand(1_000_000))) < 5000
    assert len(results.pack(big)) > 4_000_000


def _small(big):
    model = torch.nn.Linear(2, 1)
    model.weight = torch.nn.Parameter(big[2:4].view(1, 2))
    return model


def test_tensors_keep_what_they_are():
    leaf = torch.ones(2, requires_grad=True)
    values = (leaf, (leaf * 2).sum(), torch.ones(2, 3).T, torch.eye(2).to_sparse(), torch.ones(2, device="meta"))
    back = results.unpack(results.pack(values))
    assert [tensor.requires_grad for tensor in back] == [True, False, False, False, False]
    assert [tensor.is_leaf for tensor in back] == [True] * 5
    assert (back[2].stride(), back[3].is_sparse, back[4].device.type) == ((1, 3), True, "meta")
    tied = torch.nn.Linear(2, 2, bias=False)
    pair = results.unpack(results.pack(torch.nn.Sequential(tied, copy.copy(tied), tied)))
    assert pair[0] is pair[2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_come_back_on_the_cpu():
    model = torch.nn.Linear(2, 2).cuda()
    sgd = torch.optim.Adam(model.parameters())
    model(torch.ones(2, device="cuda")).sum().backward()
    sgd.step()
    value = Outcome({"a": [torch.ones(2, device="cuda")[:1]]}, {torch.nn.Parameter(torch.ones(2, device="cuda"))})
    data = results.pack((value, model, sgd, model.weight.untyped_storage(), {"m": torch.ones(1, device="cuda") * 1}))
    assert b"cuda" not in data


def test_what_cannot_travel_back_is_a_result_error():
    with pytest.raises(ResultError, match="a generator, which can't travel back"):
        results.unpack(results.pack(i for i in range(3)))
