import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnai.events import (
    TRANSITIONS,
    Checkpoint,
    Diagnosis,
    Event,
    Kind,
    Log,
    Metrics,
    NewGeneration,
    State,
    StateChange,
)


@given(
    kind=st.sampled_from(Kind),
    rank=st.none() | st.integers(0, 1000),
    step=st.none() | st.integers(0),
    payload=st.dictionaries(st.text(), st.text() | st.floats(allow_nan=False) | st.integers()),
)
def test_one_line_of_json_there_and_back(kind, rank, step, payload):
    event = Event(run_id="r", generation=2, kind=kind, time=1.5, rank=rank, step=step, payload=payload)
    line = event.to_json()
    assert "\n" not in line
    assert Event.from_json(line) == event


def test_nan_survives():
    event = Event(run_id="r", generation=0, kind=Kind.METRIC, time=0.0, payload={"loss": math.nan})
    assert math.isnan(Event.from_json(event.to_json()).payload["loss"])


def test_final_states_have_no_way_out():
    assert {state for state in State if not TRANSITIONS[state]} == {State.SUCCEEDED, State.FAILED, State.CANCELLED}
    assert all(state.final == (not TRANSITIONS[state]) for state in State)


@pytest.mark.parametrize("state", [state for state in State if not state.final])
def test_everything_else_can_be_cancelled_and_can_run_again(state):
    assert State.CANCELLED in TRANSITIONS[state]
    assert state is State.RUNNING or State.RUNNING in TRANSITIONS[state]


@pytest.mark.parametrize(
    ("said", "kind", "payload"),
    [
        (StateChange(state=State.RUNNING), "state", {"state": "RUNNING", "reason": ""}),
        (NewGeneration(ranks=2, from_step=0), "generation", {"ranks": 2, "from_step": 0}),
        (Metrics({"loss": 0.5}), "metric", {"loss": 0.5}),
        (Log(text="a\n"), "log", {"text": "a\n"}),
        (Checkpoint(path="checkpoints/gen-0/step-1"), "checkpoint", {"path": "checkpoints/gen-0/step-1"}),
        (Diagnosis(summary="s"), "diagnosis", {"summary": "s"}),
        (
            Diagnosis(summary="s", final=True, traceback="", log_tail="", hint=""),
            "diagnosis",
            {"summary": "s", "final": True, "traceback": "", "log_tail": "", "hint": ""},
        ),
        (
            Diagnosis(summary="E: s", error="E", traceback="t", at=1.0),
            "diagnosis",
            {"summary": "E: s", "error": "E", "traceback": "t", "at": 1.0},
        ),
    ],
)
def test_what_each_kind_says_in_a_journal_and_back(said, kind, payload):
    event = Event.from_json(Event.now(said, "r", 1, rank=2, step=3).to_json())
    assert (event.kind, event.payload) == (kind, payload)
    assert (event.run_id, event.generation, event.rank, event.step) == ("r", 1, 2, 3)
    assert type(said).of(event) == said


def test_every_kind_has_one_class_of_payload():
    assert sorted(each.kind for each in (StateChange, NewGeneration, Metrics, Log, Checkpoint, Diagnosis)) == sorted(
        Kind
    )


def test_keys_of_another_version_are_passed_over():
    payload = {"summary": "s", "full_traceback": "all of it"}
    event = Event(run_id="r", generation=0, kind=Kind.DIAGNOSIS, time=0.0, payload=payload)
    assert Diagnosis.of(event) == Diagnosis(summary="s")
