"""Each verb that is typed calls the function of `cnai` that has its name."""

from types import SimpleNamespace

import pytest

import cnai
from cnai.backends.engines import Engines
from cnai.errors import UsageError
from cnai.faces import verbs
from cnai.grammar import VERBS, parse

TYPED = {
    "train": "train train.py x --ranks 2",
    "attach": "attach fit",
    "runs": "runs --limit 5",
    "logs": "logs fit --rank 1 --tail 50",
    "stop": "stop fit",
    "pause": "pause fit",
    "resume": "resume fit",
    "scale": "scale fit 3",
    "cluster": "cluster",
    "publish": "publish demo.ipynb --share guest --slug demo",
    "unpublish": "unpublish demo",
    "apps": "apps",
    "doctor": "doctor",
}
ANSWERS = {"runs": [], "logs": "", "cluster": Engines()}
CALLED = {
    "attach": (("fit",), {}),
    "runs": ((5,), {}),
    "logs": (("fit",), {"rank": 1, "tail": 50}),
    "stop": (("fit",), {}),
    "pause": (("fit",), {}),
    "resume": (("fit",), {}),
    "scale": ((3, "fit"), {}),
    "cluster": ((), {}),
    "unpublish": (("demo",), {}),
    "apps": ((), {}),
    "doctor": ((), {}),
}


def test_every_verb_is_typed_here():
    assert TYPED.keys() == VERBS.keys()


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_calls_its_function(verb, monkeypatch):
    calls = []

    def note(*args, **kwargs):
        calls.append((args, kwargs))
        return ANSWERS.get(verb, SimpleNamespace(id="fit-1"))

    monkeypatch.setattr(cnai, verb, note)
    verbs.perform(parse(TYPED[verb].split()), None)
    assert len(calls) == 1
    assert calls[0] == CALLED.get(verb, calls[0])


@pytest.mark.parametrize(
    ("typed", "share", "private", "replace"),
    [
        ("", None, False, False),
        ("--share a,b", ("a", "b"), False, False),
        ("--private", None, True, False),
        ("--replace", None, False, True),
    ],
)
def test_publish_leaves_the_app_shared_unless_told_otherwise(typed, share, private, replace, monkeypatch):
    calls = []
    monkeypatch.setattr(cnai, "publish", lambda *_, **given: calls.append(given))
    verbs.perform(parse(["publish", "demo.ipynb", *typed.split()]), None)
    assert [(given["share"], given["private"], given["replace"]) for given in calls] == [(share, private, replace)]


@pytest.mark.parametrize("typed", [["--private", "--share", "a"], ["--share", " , "], ["--share", ""]])
def test_a_share_that_names_nobody_is_refused(typed):
    with pytest.raises(UsageError, match="private"):
        verbs.perform(parse(["publish", "demo.ipynb", *typed]), None)


@pytest.mark.parametrize(("typed", "called"), [("start --flavor gpu --nodes 2", ("gpu", 2)), ("stop", (None,))])
def test_the_actions_of_cluster_are_methods_of_it(typed, called, monkeypatch):
    calls = []

    def note(*args):
        calls.append(args)
        return Engines()

    monkeypatch.setattr(cnai.cluster, typed.partition(" ")[0], note)
    verbs.perform(parse(["cluster", *typed.split()]), None)
    assert calls == [called]
