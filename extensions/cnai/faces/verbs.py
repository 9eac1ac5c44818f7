"""Verbs: each takes a parsed request and calls the API's function of the same name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cnai
from cnai.errors import UsageError
from cnai.faces.targets import resolve
from cnai.faces.text import Table, Text, engines_shown, runs_table
from cnai.grammar import SPEC_FLAGS

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from cnai.run import Run

LIMIT = 20


def perform(request: Namespace, namespace: Mapping[str, Any] | None) -> Any:
    """Execute a request; `namespace` holds the notebook's names, None on the command line."""
    if request.verb == "train":
        return train(request, namespace)
    return _VERBS[request.verb](request)


def train(request: Namespace, namespace: Mapping[str, Any] | None) -> Run | Text:
    """Start a run of a function or a script; with --dry-run only show the plan."""
    if request.returns:
        raise UsageError("--return belongs to a cell: %%cnai train --return loss,model; a function returns its result")
    if not request.target:
        raise UsageError("train needs a target: a function of the notebook, or a script (a path that ends in .py)")
    from cnai import run

    target, args, kwargs = resolve(request.target, request.words, namespace)
    if request.dry_run:
        return Text(run.plan(target, args, kwargs, **spec_of(request)))
    return cnai.train(target, args, kwargs, reuse=bool(request.reuse), **spec_of(request))


def train_cell(request: Namespace, source: str, namespace: dict[str, Any], cell_name: str) -> Run:
    """Start a run of a cell; `source` has the magic as its first line, so that line numbers are the cell's."""
    given = [word for word in (request.target, *request.words) if word]
    if given:
        raise UsageError(
            f"the cell itself is the target of %%cnai train; given: {' '.join(given)}; assign it in the cell"
        )
    if request.dry_run or request.reuse:
        flag = "--dry-run" if request.dry_run else "--reuse"
        raise UsageError(f"{flag} is for functions and scripts; give the function: %cnai train fit {flag}")
    from cnai import run

    return run.train_cell(source, namespace, returns=request.returns or (), cell_name=cell_name, **spec_of(request))


def spec_of(request: Namespace) -> dict[str, Any]:
    """Return the flags that were given as keywords of `cnai.train`."""
    given = {flag.dest: getattr(request, flag.dest) for flag in SPEC_FLAGS if getattr(request, flag.dest) is not None}
    if "env" in given:
        given["env"] = dict(given["env"])
    return given


def attach(request: Namespace) -> Run:
    """Return the run that a request names, by default the latest, and follow it."""
    return cnai.attach(_named(request))


def _named(request: Namespace) -> str:
    return request.run or "latest"


def _runs(request: Namespace) -> Any:
    limit = LIMIT if request.limit is None else request.limit
    if limit < 1:
        raise UsageError(f"--limit must be 1 or more; given: {limit}")
    return runs_table(cnai.runs(limit))


def _logs(request: Namespace) -> Text:
    for flag in ("rank", "tail"):
        if (given := getattr(request, flag)) is not None and given < 0:
            raise UsageError(f"--{flag} must be 0 or more; given: {given}")
    return Text(cnai.logs(_named(request), rank=request.rank, tail=request.tail).rstrip("\n"))


def _stop(request: Namespace) -> Text:
    return Text(f"{cnai.stop(_named(request)).id}: stopping")


def _pause(request: Namespace) -> Text:
    return Text(f"{cnai.pause(_named(request)).id}: pausing; %cnai resume continues the run")


def _resume(request: Namespace) -> Text:
    return Text(f"{cnai.resume(_named(request)).id}: resuming")


def _scale(request: Namespace) -> Text:
    if request.ranks < 1:
        raise UsageError(f"ranks must be 1 or more; given: {request.ranks}")
    run = cnai.scale(request.ranks, _named(request))
    return Text(f"{run.id}: scaling to {request.ranks} rank{'s' * (request.ranks > 1)}")


def _cluster(request: Namespace) -> Table | Text:
    if request.action == "stop":
        if request.nodes is not None:
            raise UsageError("stop takes --flavor, not --nodes; scale a run to release nodes")
        return Text("the engine is stopped" if cnai.cluster.stop(request.flavor) else "no engine was running")
    if request.action == "start":
        return engines_shown(cnai.cluster.start(request.flavor, request.nodes))
    return engines_shown(cnai.cluster())


def _publish(request: Namespace) -> Any:
    return cnai.publish(
        request.notebook,
        share=request.share,
        private=bool(request.private),
        title=request.title,
        slug=request.slug,
        replace=bool(request.replace),
        include=tuple(request.include or ()),
        flavor=request.flavor,
        progress=lambda text: print(text, flush=True),  # noqa: T201 - a minute without output would look like a hang
    )


def _unpublish(request: Namespace) -> Text:
    cnai.unpublish(request.app)
    return Text(f"{request.app}: removed")


def _apps(_: Namespace) -> Any:
    return cnai.apps()


def _doctor(_: Namespace) -> Any:
    return cnai.doctor()


_VERBS = {
    "attach": attach,
    "runs": _runs,
    "logs": _logs,
    "stop": _stop,
    "pause": _pause,
    "resume": _resume,
    "scale": _scale,
    "cluster": _cluster,
    "publish": _publish,
    "unpublish": _unpublish,
    "apps": _apps,
    "doctor": _doctor,
}
