import math

from hypothesis import given
from hypothesis import strategies as st

from cnai.faces.widgets.curve import MOST_POINTS, Point, curve

NUMBERS = st.floats(-1e6, 1e6)


def test_few_reports_are_drawn_as_they_are():
    drawn = curve([1, 2, 5], [3.0, 4.0, 2.0])
    assert drawn.points == (Point(1, 3.0, 3.0, 3.0), Point(2, 4.0, 4.0, 4.0), Point(5, 2.0, 2.0, 2.0))
    assert (drawn.gaps, drawn.last) == ((), 2.0)


def test_nothing_reported_yet():
    drawn = curve([], [])
    assert drawn.points == ()
    assert math.isnan(drawn.last)


def test_one_spike_among_a_million_reports_is_kept():
    values = [0.0] * 1_000_000
    values[654_321] = 9.0
    drawn = curve(range(1_000_000), values)
    assert len(drawn.points) == MOST_POINTS
    assert max(point.high for point in drawn.points) == 9.0


def test_what_is_not_finite_is_marked_and_never_drawn():
    drawn = curve([1, 2, 3, 4], [1.0, math.nan, math.inf, 2.0])
    assert [point.step for point in drawn.points] == [1, 4]
    assert drawn.gaps == (2, 3)
    assert drawn.last == 2.0


@given(st.lists(NUMBERS, min_size=1, max_size=600), st.integers(1, 50))
def test_laws(values, most):
    steps = [3 * at for at in range(len(values))]
    points = curve(steps, values, most).points
    assert len(points) == min(most, len(values))
    assert [point.step for point in points] == sorted({point.step for point in points})
    assert min(point.low for point in points) == min(values)
    assert max(point.high for point in points) == max(values)
    assert all(point.low - 1e-6 <= point.mean <= point.high + 1e-6 for point in points)
    assert points[-1].step == steps[-1] or len(points) == 1
