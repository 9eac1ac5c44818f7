import re
from dataclasses import fields
from pathlib import Path

import pytest
from cogapp import Cog
from hypothesis import given, settings
from hypothesis import strategies as st

from cnai.errors import UnknownName, UsageError
from cnai.grammar import SPEC_FLAGS, VERBS, HelpAsked, Word, build, parse, split
from cnai.spec import RunSpec

REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"


def test_every_field_of_a_spec_has_a_flag_of_its_own():
    assert [flag.dest for flag in SPEC_FLAGS] == [field.name for field in fields(RunSpec) if field.name != "target"]


def test_flags_and_words_may_be_mixed():
    request = parse(split("train fit epochs=5 --ranks 2 lr=1e-3 --wait --timeout 5m"))
    assert (request.verb, request.target, request.words) == ("train", "fit", ["epochs=5", "lr=1e-3"])
    assert (request.ranks, request.wait, request.timeout_seconds) == ("2", True, 300.0)


def test_what_is_not_given_is_none():
    request = parse(["train", "fit"])
    assert {flag.dest: getattr(request, flag.dest) for flag in SPEC_FLAGS} == {f.dest: None for f in SPEC_FLAGS}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train.py a --ranks 2 b", ["a", "b"]),
        ("train.py -- --ranks 9 -x", ["--ranks", "9", "-x"]),
        ("train.py a -- b -- c", ["a", "b", "--", "c"]),
        ("train.py 'a b' --ranks 2 -1", ["a b", "-1"]),
    ],
)
def test_a_script_gets_its_words_in_their_order(line, words):
    assert parse(split(f"train {line}")).words == words


@pytest.mark.parametrize(
    ("given", "raw"),
    [
        ("lr=1e-3", ["lr=1e-3"]),
        ("a=[1, 2] b='x y'", ["a=[1, 2]", "b='x y'"]),
        ("a={'k': (1, 2)} \"q r\"", ["a={'k': (1, 2)}", '"q r"']),
        ("a='it ( is' b", ["a='it ( is'", "b"]),
        ("  ", []),
    ],
)
def test_python_literals_are_one_word(given, raw):
    assert [word.raw for word in split(given)] == raw


def test_a_word_keeps_its_quotes_for_python_and_loses_them_for_a_script():
    (word,) = parse(split("train fit name='a b'")).words
    assert (str(word), word.raw) == ("name=a b", "name='a b'")
    assert isinstance(word, Word)


@pytest.mark.parametrize(
    ("line", "expected"),
    [("scale 3", (None, 3)), ("scale fit 3", ("fit", 3)), ("scale -1", (None, -1))],
)
def test_scale_may_leave_out_the_run(line, expected):
    request = parse(split(line))
    assert (request.run, request.ranks) == expected


def test_env_is_read_as_pairs():
    assert parse(split("train fit --env A='x y' --env B=c=d")).env == [("A", "x y"), ("B", "c=d")]


@pytest.mark.parametrize(
    ("line", "error", "says"),
    [
        ("trian fit", UnknownName, r"unknown verb 'trian'; did you mean 'train'"),
        ("--ranks 2", UnknownName, r"unknown flag '--ranks'"),
        ("train fit --rnks 2", UnknownName, r"unknown flag '--rnks'; did you mean '--ranks'.*go after --"),
        ("train fit --rank=2", UnknownName, r"unknown flag '--rank'; did you mean '--ranks'"),
        ("train fit -n 2", UnknownName, r"unknown flag '-n'"),
        ("train fit --ranks", UsageError, r"--ranks needs a value: --ranks N\|MIN:MAX"),
        ("train fit --nodes two", UsageError, r"--nodes: takes a whole number; given: two"),
        ("train fit --timeout soon", UsageError, r"--timeout: takes a time such as .*5m.*; given: soon"),
        ("train fit --env A", UsageError, r"--env: takes KEY=VALUE; given: A"),
        ("train --return 1x", UsageError, r"--return: takes names of variables .*; given: 1x"),
        ("train fit --wait=3", UsageError, r"--wait takes no value; given: 3"),
        ("train 'a", UsageError, r"a closing ' is missing in: train 'a"),
        ("train fit a=[1", UsageError, r"a closing \] is missing"),
        ("scale", UsageError, r"missing: RANKS"),
        ("scale fit many", UsageError, r"RANKS: takes a whole number; given: many"),
        ("stop a b", UsageError, r"unexpected words: b"),
        ("runs --limit x", UsageError, r"--limit: takes a whole number"),
        ("cluster sttus", UsageError, r"takes status, start, stop; given: sttus; did you mean 'status'"),
        ("publish", UsageError, r"missing: NOTEBOOK"),
        ("unpublish", UsageError, r"missing: APP"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(line, error, says):
    with pytest.raises(error, match=says) as caught:
        parse(split(line))
    assert len(str(caught.value).splitlines()) == 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*VERBS, "--", "-1", "a=1", "x", "--ranks", "--env=a", "-h", "--wait", "'", "é", ""])))
def test_parse_never_leaves_the_process(words):
    try:
        request = parse(words)
    except HelpAsked:
        return
    except UsageError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert request.verb == words[0]


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_names_all_its_flags_and_examples(verb):
    with pytest.raises(HelpAsked) as asked:
        parse([verb, "--help"], "%cnai")
    text = str(asked.value)
    assert all(flag in text for flag in VERBS[verb].flags())
    assert all(f"%cnai {example}" in text for example in VERBS[verb].examples)
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("words", [[], ["--help"], ["help"], ["-h"]])
def test_help_lists_all_verbs(words):
    with pytest.raises(HelpAsked) as asked:
        parse(words)
    assert all(re.search(rf"^ +{verb}\b", str(asked.value), re.MULTILINE) for verb in VERBS)


@pytest.mark.parametrize("example", [example for verb in VERBS.values() for example in verb.examples])
def test_examples_can_be_typed(example):
    assert parse(split(example)).verb == example.split()[0]


def test_the_tree_for_the_shell_has_all_verbs_and_flags():
    parser = build()
    for name, verb in VERBS.items():
        (branch,) = [action.choices[name] for action in parser._actions if action.dest == "verb"]
        assert set(verb.flags()) <= set(branch._option_string_actions)


def test_the_reference_page_is_what_the_grammar_says():
    assert Cog().main(["cog", "--check", "-D", "x=1", str(REFERENCE)]) == 0, "run: cog -r docs/reference.md"
