import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnai.faces.text import Table, Text, ago, clock, number, sparkline


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        ([1.0], "▅"),
        ([0, 1], "▁█"),
        ([7, 6, 5, 4, 3, 2, 1, 0], "█▇▆▅▄▃▂▁"),
        ([0, math.nan, 1], "▁ █"),
        ([math.inf, 1, 2], " ▁█"),
        ([math.nan], " "),
        (range(16), "▁▂▃▄▅▆▇█"),
    ],
)
def test_sparkline(values, expected):
    assert sparkline(list(values), width=8) == expected


@given(st.lists(st.floats(), max_size=300), st.integers(1, 40))
def test_a_sparkline_always_fits(values, width):
    assert len(sparkline(values, width)) == min(width, len(values))


@pytest.mark.parametrize(("seconds", "expected"), [(0, "0:00"), (67.9, "1:07"), (3600, "1:00:00"), (90061, "25:01:01")])
def test_clock(seconds, expected):
    assert clock(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(-1, "0 s ago"), (59, "59 s ago"), (60, "1 min ago"), (200000, "2 d ago")]
)
def test_ago(seconds, expected):
    assert ago(seconds) == expected


def test_numbers_are_short():
    assert [number(value) for value in (0.123456, 12345678.0, math.nan, 3)] == ["0.1235", "1.235e+07", "nan", "3"]


def test_text_shows_itself():
    assert repr(Text("a\nb")) == "a\nb"


def test_a_table_is_a_list_that_lines_up():
    table = Table([1, 2], ("name", "n"), [("a", "1"), ("bcdef", "2")], "nothing")
    assert table == [1, 2]
    assert repr(table).splitlines() == ["name   n", "a      1", "bcdef  2"]


def test_a_table_escapes_what_people_named():
    assert "<td style='text-align:left'>&lt;b&gt;</td>" in Table([1], ("x",), [("<b>",)], "")._repr_html_()


def test_an_empty_table_says_so():
    table = Table([], ("x",), [], "no runs yet")
    assert repr(table) == "no runs yet"
    assert table._repr_html_() == "<em>no runs yet</em>"
