"""`--reuse` gives the run whose result the new run would have, and says so."""

from __future__ import annotations

import functools
import os
import warnings

import pytest

import cnai
from cnai.faces.text import headline


@pytest.fixture
def train(home):
    """Train in this process; return the run with the lines that were said."""

    def trained(target, *args, reuse=True, **spec):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            run = cnai.train(target, args, reuse=reuse, backend="debug", **spec)
        run.said = [str(one.message) for one in said]
        return run

    return trained


def train_it(lr):
    return lr


class Model:
    def __init__(self, lr):
        self.lr = lr

    def fit(self):
        return self.lr


def closure(lr):
    def fit():
        return lr

    return fit


TARGETS = {
    "partial": lambda lr: functools.partial(train_it, lr=lr),
    "bound method": lambda lr: Model(lr).fit,
    "closure": closure,
}


@pytest.mark.parametrize("case", TARGETS)
def test_a_run_of_other_values_is_not_reused(train, case):
    target = TARGETS[case]
    first = train(target(0.1), reuse=False)
    other = train(target(0.9))
    assert (other.result(), other.reused) == (0.9, "")
    assert [line.partition(" has ")[2] for line in other.said] == [
        "other code, or another value that it uses; this is a new run"
    ]
    again = train(target(0.1))
    assert (again.id, again.result(), again.said) == (first.id, 0.1, [])
    assert f"reused the run of {again.reused}" in headline(again)
    assert f"reused the run of {again.reused}" in repr(again)


def test_the_line_names_what_is_different(train):
    train(train_it, 1)
    for args, spec, difference in (
        ((2,), {}, "other arguments"),
        ((1,), {"env": {"A": "1"}}, "other ranks, image or --env"),
    ):
        run = train(train_it, *args, **spec)
        assert [line.partition(" has ")[2] for line in run.said] == [f"{difference}; this is a new run"]


def test_values_that_cant_be_compared_make_a_new_run(train):
    class Moment:
        def __reduce__(self):
            return (str, (os.urandom(8).hex(),))

    def fit(moment):
        return 1

    first = train(fit, Moment())
    second = train(fit, Moment())
    assert second.id != first.id
    assert second.said == [
        "nothing to reuse: 'moment' can't be compared, because it is pickled differently each time; this is a new run"
    ]


def test_an_app_finds_a_run_of_which_it_has_no_payload(train, home):
    first = train(train_it, 1)
    (home / "runs" / first.id / "payload").unlink()
    assert train(train_it, 1).id == first.id
