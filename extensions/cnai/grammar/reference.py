"""Reference: generates docs/reference.md from the grammar."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cnai.grammar.verbs import VERBS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnai.grammar.arguments import Argument
    from cnai.grammar.verbs import Verb


def reference() -> str:
    """Return the page's generated part as Markdown."""
    index = "\n".join(f"| [`{verb.name}`](#{verb.name}) | {verb.help} |" for verb in VERBS.values())
    return "\n\n".join([f"| verb | what it does |\n|---|---|\n{index}", *map(_section, VERBS.values())]) + "\n"


def _section(verb: Verb) -> str:
    return "\n\n".join(_parts(verb))


def _parts(verb: Verb) -> Iterator[str]:
    yield f"## {verb.name}"
    yield f"{verb.help[0].upper()}{verb.help[1:]}. {_code(verb.about)}".strip()
    yield "```\n" + "\n".join(f"%cnai {example}" for example in verb.examples) + "\n```"
    if verb.arguments:
        yield "| argument | meaning | default |\n|---|---|---|\n" + "\n".join(map(_row, verb.arguments))


def _row(argument: Argument) -> str:
    names = argument.names if argument.flag else ("",)
    spelling = ", ".join(f"`{f'{name} {argument.metavar}'.strip()}`" for name in names).replace("|", "\\|")
    text, _, default = argument.help.partition("; default: ")
    return f"| {spelling} | {_code(text)} | {_code(default or argument.default)} |"


def _code(text: str) -> str:
    """Mark flags and magics as code."""
    return re.sub(r"(?<!\w)(--[a-z][a-z-]*|%+cnai(?: [a-z]+)?)", r"`\1`", text)
