import pytest

from cnai.engine.control.diagnoses import hint
from cnai.engine.control.verdicts import Budget, judge, spread
from cnai.engine.messages import Failure, Report
from cnai.events import Diagnosis
from cnai.spec import RunSpec, Target

GLOO = "RuntimeError: [../gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:4242"


def said(at, summary):
    return Diagnosis(summary=summary, at=at, traceback="lines")


def test_all_finished():
    verdict = judge([Report(node_rank=0, said={0: "finished", 1: "finished"})], {}, 2)
    assert (verdict.ending, verdict.cause) == ("finished", None)


def test_ended_on_two_nodes():
    reports = [Report(node_rank=0, said={0: "ended"}), Report(node_rank=1, said={1: "ended"})]
    assert judge(reports, {}, 2).ending == "ended"


@pytest.mark.parametrize(
    ("reports", "diagnoses", "summary", "fault", "rank"),
    [
        # The first exception is the cause, later ones are not.
        ([Report(node_rank=0)], {0: said(2.0, "A: late"), 1: said(1.0, "B: early")}, "rank 1: B: early", "user", 1),
        # Losing a peer is an echo, even if it is noticed first.
        (
            [Report(node_rank=0)],
            {0: said(1.0, GLOO), 1: said(2.0, "ValueError: x")},
            "rank 1: ValueError: x",
            "user",
            1,
        ),
        # A killed rank says nothing itself.
        (
            [Report(node_rank=0, failures=(Failure(rank=1, exit_code=-9, time=5.0),))],
            {0: said(4.0, GLOO)},
            "rank 1 was killed by SIGKILL",
            "infra",
            1,
        ),
        (
            [Report(node_rank=0, failures=(Failure(rank=0, exit_code=3, time=5.0),))],
            {},
            "rank 0 exited with code 3",
            "user",
            0,
        ),
        # A rank's exception and its exit are one failure.
        (
            [Report(node_rank=0, failures=(Failure(rank=0, exit_code=1, time=5.0),))],
            {0: said(4.0, "KeyError: 'a'")},
            "rank 0: KeyError: 'a'",
            "user",
            0,
        ),
        ([Report(node_rank=0, error="node 0 was lost")], {0: said(1.0, GLOO)}, "node 0 was lost", "infra", None),
        # Only echoes: a collective that nobody joined.
        ([Report(node_rank=0)], {1: said(1.0, GLOO)}, f"rank 1: {GLOO}", "infra", 1),
        ([Report(node_rank=0)], {}, "the ranks ended without a reason", "infra", None),
    ],
)
def test_cause(reports, diagnoses, summary, fault, rank):
    verdict = judge(reports, diagnoses, 2)
    assert verdict.ending == "failed"
    assert (verdict.cause.summary, verdict.cause.fault, verdict.cause.rank) == (summary, fault, rank)


def test_budget_counts_failures_without_progress():
    spec, budget = RunSpec(target=Target("function", "fit"), retries=1, infra_retries=2), Budget()
    assert [budget.allows("infra", spec) for _ in range(3)] == [True, True, False]
    budget.progress()
    assert budget.allows("infra", spec)
    assert [budget.allows("user", spec) for _ in range(2)] == [True, False]
    assert not budget.allows("deadline", spec)


@pytest.mark.parametrize(("ranks", "nodes", "shares"), [(4, 2, [2, 2]), (5, 2, [3, 2]), (2, 1, [2]), (3, 3, [1, 1, 1])])
def test_spread(ranks, nodes, shares):
    assert spread(ranks, nodes) == shares


def test_known_patterns_have_a_fix():
    assert "smaller batch_size" in hint("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")
    assert "next to the notebook" in hint("ModuleNotFoundError: No module named 'mylib'")
    assert hint("ValueError: mine") == ""
