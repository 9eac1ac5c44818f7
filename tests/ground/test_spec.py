import pytest

from cnai.errors import UsageError
from cnai.spec import Interval, Ranks, RunSpec, Target, nodes_for

FIT = Target("function", "fit")


def test_travels_as_json():
    spec = RunSpec(
        target=Target("cell", "cell-4", "Cell [4]", ("loss", "model")),
        ranks=Ranks(1, 4),
        checkpoint_every=Interval(steps=50),
        env={"A": "1"},
        stall_seconds=3.5,
    )
    assert RunSpec.from_json(spec.to_json()) == spec


def test_is_named_for_its_target():
    assert RunSpec(target=FIT).name == "fit"


@pytest.mark.parametrize(
    ("given", "read", "shown"), [(4, Ranks(4, 4), "4"), ("4", Ranks(4, 4), "4"), ("1:4", Ranks(1, 4), "1:4")]
)
def test_ranks(given, read, shown):
    assert Ranks.parse(given) == read
    assert str(read) == shown


@pytest.mark.parametrize("given", [0, -1, "x", "4:1", "0:2", "1:2:3", 1.5, True])
def test_ranks_that_are_none(given):
    with pytest.raises(UsageError, match=f"ranks must be 1 or more, or a range such as 1:4; given: {given}"):
        Ranks.parse(given)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (100, Interval(steps=100)),
        ("100", Interval(steps=100)),
        ("30s", Interval(seconds=30)),
        ("1.5m", Interval(seconds=90)),
    ],
)
def test_interval(given, read):
    assert Interval.parse(given) == read
    assert Interval.parse(str(read)) == read


@pytest.mark.parametrize("given", [0, "0s", "-5s", "1.5", "often", True])
def test_interval_that_is_none(given):
    with pytest.raises(UsageError, match="checkpoint_every"):
        Interval.parse(given)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "two words"}, "name must be letters"),
        ({"retries": -1}, "retries must be 0 or more; given: -1"),
        ({"deadline_seconds": 0}, "deadline_seconds must be above 0; given: 0"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds must be above 0"),
        ({"nodes": 3, "ranks": Ranks(2, 2)}, r"nodes must be from 1 to ranks \(2\); given: 3"),
    ],
)
def test_is_validated_when_built(wrong, message):
    with pytest.raises(UsageError, match=message):
        RunSpec(target=FIT, **wrong)


def test_the_backend_comes_from_the_server(monkeypatch):
    monkeypatch.setenv("CNAI_BACKEND", "tcp://somewhere:8786")
    spec = RunSpec(target=FIT)
    assert spec.backend == "tcp://somewhere:8786"
    monkeypatch.delenv("CNAI_BACKEND")
    assert RunSpec(target=FIT).backend == "local"
    assert RunSpec.from_json(spec.to_json()).backend == "tcp://somewhere:8786"


@pytest.mark.parametrize(
    ("ranks", "per_node", "wanted", "nodes"),
    [
        (1, 4, None, 1),
        (4, 4, None, 1),
        (5, 4, None, 2),
        (4, 4, 2, 2),
        (9, 4, 2, 3),
        (1, 4, 2, 1),
        (2, 1, 2, 2),
        (9, None, None, 1),
        (9, None, 3, 3),
    ],
)
def test_nodes_for_ranks(ranks, per_node, wanted, nodes):
    assert nodes_for(ranks, wanted, per_node) == nodes
