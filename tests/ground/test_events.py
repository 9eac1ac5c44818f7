import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnai.events import TRANSITIONS, Event, Kind, State


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
