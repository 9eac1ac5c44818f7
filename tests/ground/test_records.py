"""Records cross a process or a disk: strict about types, patient with keys that a newer version added."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

import pytest

from cnai.records import Record
from cnai.tables import Mistake, build


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel(Record):
    size: float
    maker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Car(Record):
    name: str
    wheels: tuple[Wheel, ...] = ()
    spare: Wheel | None = None
    papers: dict[str, str] = field(default_factory=dict)
    gear: Literal["manual", "automatic"] = "manual"
    about: object = None


CAR = Car(name="a", wheels=(Wheel(size=16.5),), spare=Wheel(size=1), papers={"x": "y"}, gear="automatic", about=[1])


def test_a_record_is_read_as_it_was_written():
    assert Car.from_json(CAR.to_json()) == CAR
    assert Car.of(CAR.plain() | {"wheels": [{"size": 16.5}]}) == CAR
    assert not hasattr(CAR, "__dict__")


def test_what_a_newer_version_added_is_ignored_at_every_depth():
    newer = {**CAR.plain(), "wheels": [{"size": 16.5, "color": "red"}], "roof": {"glass": True}}
    assert Car.from_json(json.dumps(newer)) == CAR
    with pytest.raises(Mistake, match="roof is unknown"):
        build(Car, newer)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not JSON (Expecting value: line 1 column 1 (char 0))"),
        ("null", "must be a table; given: None"),
        ("[]", "must be a table; given: []"),
        ("{}", "name is missing"),
        ('{"name": 3}', "name must be text; given: 3"),
        ('{"name": "a", "wheels": {}}', "wheels must be a list; given: {}"),
        ('{"name": "a", "wheels": [{"size": "x"}]}', "wheels[0].size must be a number; given: 'x'"),
        ('{"name": "a", "spare": {}}', "spare.size is missing"),
        ('{"name": "a", "papers": ["x"]}', "papers must be a table; given: ['x']"),
        ('{"name": "a", "papers": {"x": 1}}', "papers.x must be text; given: 1"),
        ('{"name": "a", "gear": "none"}', "gear must be manual or automatic; given: 'none'"),
    ],
)
def test_what_is_no_such_record_is_one_sentence(text, why):
    with pytest.raises(Mistake) as mistake:
        Car.from_json(text)
    assert str(mistake.value) == why


def test_json_that_is_nested_without_end_is_no_record():
    with pytest.raises(Mistake, match="is not JSON"):
        Car.from_json("[" * 100_000)
