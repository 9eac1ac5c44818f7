"""Completion: the Tab key's suggestions, in a notebook and in a shell."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnai.errors import CnaiError
from cnai.faces.targets import functions, is_script
from cnai.grammar import VERBS, Argument, Verb
from cnai.grammar.arguments import CLUSTER_ACTIONS, Kind
from cnai.paths import home, store_root

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    from IPython.core.completer import CompletionContext, SimpleMatcherResult
    from IPython.core.interactiveshell import InteractiveShell

MOST_RUNS = 50
_MAGIC = re.compile(r"(?:^|=)\s*%%?cnai\s+(?P<words>.*)$")


def candidates(words: Sequence[str], begun: str, namespace: Mapping[str, Any] | None = None) -> list[str]:
    """Return the possible words after `words` that start with `begun`; `namespace` holds the notebook's names."""
    if not words:
        found = list(VERBS)
    elif (verb := VERBS.get(words[0])) is None:
        found = []
    else:
        found = _in_verb(verb, list(words[1:]), begun, namespace)
    return [text for text in found if text.startswith(begun)]


def _in_verb(verb: Verb, words: list[str], begun: str, namespace: Mapping[str, Any] | None) -> list[str]:
    if "--" in words:
        return _files(begun, "")
    flags = verb.flags()
    if words and words[-1] in flags and flags[words[-1]].metavar:
        return offers(flags[words[-1]], begun, namespace)
    if begun.startswith("-"):
        return [name for name, flag in flags.items() if name not in words or flag.many] + ["--help"]
    plain = [word for before, word in zip(["", *words], words, strict=False) if _is_plain(before, word, flags)]
    positionals = [argument for argument in verb.arguments if not argument.flag]
    if len(plain) < len(positionals):
        return offers(positionals[len(plain)], begun, namespace)
    return _parameters(plain[0], begun, namespace) if verb.words and plain else []


def _is_plain(before: str, word: str, flags: Mapping[str, Argument]) -> bool:
    return not word.startswith("-") and not (before in flags and flags[before].metavar)


def offers(argument: Argument, begun: str, namespace: Mapping[str, Any] | None = None) -> list[str]:
    """Return the names that an argument may take; imports no heavy module and starts no process."""
    if argument.kind == "target":
        return [*functions(namespace or {}), *_files(begun, ".py")]
    if argument.kind in {"notebook", "path"}:
        return _files(begun, ".ipynb" if argument.kind == "notebook" else "")
    return _OFFERS[argument.kind]() if argument.kind in _OFFERS else []


def _parameters(target: str, begun: str, namespace: Mapping[str, Any] | None) -> list[str]:
    if is_script(target):
        return _files(begun, "")
    try:
        return [f"{name}=" for name in inspect.signature((namespace or {})[target]).parameters]
    except (KeyError, TypeError, ValueError):
        return []


def _files(begun: str, ending: str) -> list[str]:
    folder, _, name = begun.rpartition("/")
    prefix = f"{folder}/" if "/" in begun else ""
    try:
        found = sorted(Path(prefix or ".").expanduser().iterdir())
    except OSError:
        return []
    return [
        prefix + path.name + ("/" if path.is_dir() else "")
        for path in found
        if (path.is_dir() or path.name.endswith(ending)) and path.name.startswith(".") == name.startswith(".")
    ]


def _folders(root: Path) -> list[str]:
    """Return the names of the folders in a folder, newest first."""
    try:
        found = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
        return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[:MOST_RUNS]]
    except OSError:
        return []


def _catalog(what: str) -> list[str]:
    from cnai import catalog

    try:
        return [item.name for item in getattr(catalog.load(), what)]
    except CnaiError:
        return []


def _backends() -> tuple[str, ...]:
    from cnai import backends

    return backends.NAMES


_OFFERS: dict[str, Callable[[], list[str]]] = {
    "run": lambda: ["latest", *_folders(store_root())],
    "app": lambda: sorted({record.parent.name for record in (home() / "apps").glob("*/*/app.json")}),
    "flavor": lambda: _catalog("flavors"),
    "image": lambda: _catalog("images"),
    "backend": lambda: [*_backends(), "tcp://"],
    "action": lambda: list(CLUSTER_ACTIONS),
}


def matcher(shell: InteractiveShell) -> Callable[[CompletionContext], SimpleMatcherResult]:
    """Return IPython's matcher for cnai's lines; on these lines it suppresses all other matchers."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    @context_matcher(identifier="cnai")  # type: ignore[untyped-decorator, unused-ignore]
    def cnai_matcher(context: CompletionContext) -> SimpleMatcherResult:
        match = _MAGIC.search(context.text_until_cursor)
        words = re.split(r"\s+", match["words"]) if match else []
        begun = words.pop() if words else ""
        if match is None or "=" in begun:  # a parameter's value is Python, which IPython's own matchers complete
            return {"completions": [], "suppress": False}
        namespace = {key: value for key, value in shell.user_ns.items() if key not in shell.user_ns_hidden}
        found = [SimpleCompletion(text, type="magic") for text in candidates(words, begun, namespace)]
        return {"completions": found, "matched_fragment": begun, "suppress": True, "ordered": True}

    cnai_matcher.of_cnai = True
    return cnai_matcher


def equip(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add a completer to each argument of argparse's tree, for argcomplete."""
    for action in parser._actions:
        kind: Kind = getattr(action, "kind", "")
        if isinstance(action.choices, dict):
            for branch in action.choices.values():
                equip(branch)
        elif kind and kind != "people":
            argument = Argument(names=(action.dest,), dest=action.dest, help="", kind=kind)
            action.completer = lambda prefix, argument=argument, **_: offers(argument, prefix)  # type: ignore[attr-defined]
    return parser
