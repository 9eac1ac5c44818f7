"""Grammar: the single description of the commands, for magic, command, `--help`, completion and docs/reference.md.

Laws (tests/ground/test_grammar.py):
- for any input, `parse` returns a request or raises HelpAsked or a UsageError of one line, never SystemExit;
- an omitted argument is None, because defaults belong in RunSpec and in the called functions;
- flags and words may be mixed; nothing after `--` is a flag;
- every field of RunSpec has its own flag.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from typing import TYPE_CHECKING, NoReturn

from cnai.errors import UnknownName, UsageError
from cnai.grammar.arguments import Argument
from cnai.grammar.verbs import SPEC_FLAGS, VERBS, Verb
from cnai.grammar.words import Word, split

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SPEC_FLAGS", "VERBS", "Argument", "HelpAsked", "Verb", "Word", "build", "parse", "split"]

_NEGATIVE = re.compile(r"-\.?\d")
_HELP = ("-h", "--help")
_WIDTH = 100


class HelpAsked(Exception):
    """Carries the requested help text."""


class _Parser(argparse.ArgumentParser):
    """An argparse parser that raises UsageError instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        problem = message.removeprefix("argument ").replace("the following arguments are required", "missing")
        raise UsageError(f"{self.prog}: {problem}; see {self.prog} --help")


def parse(words: Sequence[str], prog: str = "cnai") -> argparse.Namespace:
    """Parse words into a request: its `verb`, and a value or None for each of the verb's arguments."""
    if not words or words[0] in (*_HELP, "help"):
        raise HelpAsked(build(prog).format_help())
    verb = VERBS.get(words[0])
    if verb is None:
        raise UnknownName("flag" if words[0].startswith("-") else "verb", words[0], VERBS, f"see {prog} --help")
    flags, plain = _sort(verb, words[1:], prog)
    parser = _add(_Parser(prog=f"{prog} {verb.name}"), verb)
    if flags is None:
        raise HelpAsked(parser.format_help())
    room = sum(not argument.flag for argument in verb.arguments)
    if len(plain) > room and not verb.words:
        raise UsageError(f"{parser.prog}: unexpected words: {' '.join(plain[room:])}; see {parser.prog} --help")
    request = parser.parse_args([*flags, "--", *plain[:room]] if plain else flags)
    request.verb = verb.name
    if verb.words:
        request.words = plain[room:]  # bypasses argparse, which removes each "--"
    return request


def _sort(verb: Verb, words: Sequence[str], prog: str) -> tuple[list[str] | None, list[str]]:
    """Separate flags from plain words, so that users may mix them; the flags are None if help was requested."""
    known, flags, plain = verb.flags(), list[str](), list[str]()
    rest = iter(words)
    for word in rest:
        if word == "--":
            plain.extend(rest)
        elif word in _HELP:
            return None, []
        elif not word.startswith("-") or _NEGATIVE.match(word):
            plain.append(word)
        else:
            name, equals, value = word.partition("=")
            if name not in known:
                own = " (a script's own flags go after --)" if verb.words else ""
                raise UnknownName("flag", name, known, f"see {prog} {verb.name} --help{own}")
            if equals and not known[name].metavar:
                raise UsageError(f"{prog} {verb.name}: {name} takes no value; given: {value}")
            if not known[name].metavar or equals:
                flags.append(word)
            elif (value := next(rest, "--")) != "--":
                flags.append(f"{name}={value}")
            else:
                raise UsageError(f"{prog} {verb.name}: {name} needs a value: {name} {known[name].metavar}")
    return flags, plain


def build(prog: str = "cnai") -> argparse.ArgumentParser:
    """Return argparse's tree of the whole grammar, for help and for the shell's completion."""
    about = "Train over many ranks from a notebook; publish notebooks as apps."
    parser = _Parser(prog=prog, description=about, formatter_class=_help_format)
    parser.epilog = f"{prog} VERB --help describes a verb."
    verbs = parser.add_subparsers(metavar="VERB", title="verbs", dest="verb", parser_class=_Parser)
    for verb in VERBS.values():
        _add(verbs.add_parser(verb.name, help=verb.help), verb)
    return parser


def _add(parser: argparse.ArgumentParser, verb: Verb) -> argparse.ArgumentParser:
    """Add the help texts and arguments of one verb to its parser."""
    parser.allow_abbrev = False
    parser.formatter_class = _help_format
    parser.description = textwrap.fill(f"{verb.help[0].upper()}{verb.help[1:]}. {verb.about}", _WIDTH)
    if verb.examples:
        base = parser.prog.removesuffix(verb.name)
        parser.epilog = "examples:\n" + "\n".join(f"  {base}{example}" for example in verb.examples)
    for argument in verb.arguments:
        _add_argument(parser, argument)
    if verb.words:
        parser.add_argument("words", nargs="*", metavar="WORD", help="NAME=VALUE, or a script's arguments")
    return parser


def _add_argument(parser: argparse.ArgumentParser, argument: Argument) -> None:
    text = argument.help + (f"; default: {argument.default}" if argument.default else "")
    if not argument.flag:
        action = parser.add_argument(
            argument.dest,
            nargs="?" if argument.optional else None,
            type=_untouched if argument.read is str else argument.read,
            metavar=argument.metavar,
            help=text,
        )
    elif not argument.metavar:
        action = parser.add_argument(*argument.names, dest=argument.dest, action="store_true", default=None, help=text)
    else:
        action = parser.add_argument(
            *argument.names,
            dest=argument.dest,
            action="append" if argument.many else "store",
            type=argument.read,
            metavar=argument.metavar,
            help=text,
        )
    action.kind = argument.kind  # type: ignore[attr-defined]


def _untouched(word: str) -> str:
    """Return a Word unchanged; `str` would drop its `raw` text with the quotes."""
    return word


def _help_format(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=28, width=_WIDTH)
