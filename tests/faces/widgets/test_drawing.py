import json
import math
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnai.faces.widgets.curve import curve
from cnai.faces.widgets.drawing import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, draw, picture

SVG = "{http://www.w3.org/2000/svg}"


def drawn(values, name="loss"):
    return draw(name, curve(range(1, len(values) + 1), values), "#123456")


def texts(drawing):
    return [element.text for element in ElementTree.fromstring(drawing.svg).iter(f"{SVG}text")]


def test_a_curve_goes_from_the_left_to_the_right_edge():
    points = json.loads(drawn([3.0, 2.0, 1.0]).points)
    assert [point[0] for point in points] == [LEFT, (LEFT + RIGHT) / 2, RIGHT]
    assert points[0][1] < points[1][1] < points[2][1], "down means less"
    assert [point[2:] for point in points] == [[1, 3, 3, 3], [2, 2, 2, 2], [3, 1, 1, 1]]


def test_name_last_value_and_round_ticks_are_written():
    shown = texts(drawn([0.0, 0.31, 0.25]))
    assert shown[:2] == ["loss", "0.25"]
    assert {"0", "0.1", "0.2", "0.3", "1", "2", "3"} <= set(shown)


@pytest.mark.parametrize("values", [[5.0], [5.0] * 3, [0.0], [-2.0, -2.0], [1e-12, 1e-12]])
def test_what_does_not_change_is_in_the_middle(values):
    y = json.loads(drawn(values).points)[0][1]
    assert y == pytest.approx((TOP + BOTTOM) / 2, abs=0.2)


def test_nan_breaks_the_line_and_raises_an_alarm():
    drawing = drawn([1.0, 2.0, math.nan, 3.0, 4.0, math.nan])
    assert drawing.svg.count('stroke-width="1.8"') == 2
    assert drawing.svg.count("not finite at step") == 2
    assert texts(drawing)[1] == "nan"


def test_many_reports_get_a_band_from_lowest_to_highest():
    assert "fill-opacity" not in drawn([1.0, 2.0]).svg
    assert "fill-opacity" in drawn([float(at % 7) for at in range(5000)]).svg


def test_names_of_people_are_escaped():
    drawing = drawn([1.0], name='<script>"&')
    assert texts(drawing)[0] == '<script>"&'


@settings(deadline=None)
@given(st.lists(st.floats(), max_size=400))
def test_every_series_can_be_drawn_in_bounded_space(values):
    drawing = drawn(values)
    ElementTree.fromstring(drawing.svg)
    for x, y, *_ in json.loads(drawing.points):
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT
    assert len(drawing.svg) < 40_000
    assert "inf" not in drawing.points
    assert "NaN" not in drawing.points


def test_a_picture_holds_all_charts():
    root = ElementTree.fromstring(picture([drawn([1.0, 2.0], name) for name in ("a", "b", "c")], "fit · SUCCEEDED"))
    assert [chart.get("aria-label") for chart in root.findall(f"{SVG}svg")] == ["a", "b", "c"]
    assert root.find(f"{SVG}text").text == "fit · SUCCEEDED"
