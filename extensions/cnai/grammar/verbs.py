"""Verbs: what can be typed, as data."""

from __future__ import annotations

from dataclasses import dataclass

from cnai import environment
from cnai.grammar.arguments import (
    CLUSTER_ACTIONS,
    Argument,
    action,
    flag,
    names,
    pair,
    python_names,
    seconds,
    whole,
    word,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One thing cnai can do; `help` is half a sentence, `about` what else to know, `examples` lack the leading cnai."""

    name: str
    help: str
    arguments: tuple[Argument, ...] = ()
    about: str = ""
    examples: tuple[str, ...] = ()
    words: bool = False
    """Takes free words after its positionals: the target's own parameters."""

    def flags(self) -> dict[str, Argument]:
        """Return the flags by each of their spellings."""
        return {name: argument for argument in self.arguments if argument.flag for name in argument.names}


SPEC_FLAGS = (
    flag("ranks", "N|MIN:MAX", "world size: a number, or a range in which the run starts with as many as fit"),
    flag("nodes", "N", "over how many nodes the ranks are spread; default: as few as the flavor allows", whole),
    flag("flavor", "NAME", "CPUs, memory and GPUs of each node, by their name in the catalog", kind="flavor"),
    flag("image", "NAME", "software of the nodes, by its name in the catalog; default: the notebook's", kind="image"),
    flag(
        "backend",
        "NAME",
        f"local, kubernetes, debug (one rank here) or tcp://HOST:PORT (Dask); default: ${environment.BACKEND} or local",
        kind="backend",
    ),
    flag("name", "TEXT", "name of the run, for people; default: the target's"),
    flag("checkpoint-every", "STEPS|TIME", "interval of automatic checkpoints: 100 (steps), 30s, 5m"),
    flag("retries", "N", "restarts after an exception without progress in between", whole),
    flag("infra-retries", "N", "restarts after a lost rank or node without progress in between", whole),
    flag("timeout", "TIME", "limit of one collective; a rank that waits longer fails", seconds, dest="timeout_seconds"),
    flag("stall", "TIME", "limit without a step or report; default: none", seconds, dest="stall_seconds"),
    flag("deadline", "TIME", "limit of the whole run; default: none", seconds, dest="deadline_seconds"),
    flag("ttl", "TIME", "how long the finished run is kept; default: until removed", seconds, dest="ttl_seconds"),
    flag("env", "KEY=VALUE", "added to the environment of each rank; several times", pair, many=True),
    flag("debug", "", "show complete tracebacks, ours included"),
)
"""The flags that mirror RunSpec; `dest` is the name of its field."""

_RUN = word("run", "RUN", "id of the run, its beginning, or its name; default: the latest", kind="run")
_WAIT = flag("wait/follow", "", "wait for the end; an error of the run is an error of the cell")

_ALL = (
    Verb(
        name="train",
        help="train a function, a cell or a script over ranks",
        about=(
            "TARGET is a function of the notebook, or a script (a path that ends in .py). Words with = are parameters "
            "of a function: Python literals or expressions of the notebook. All words after a script are its own; "
            "flags for it go after --. %%cnai train takes the cell's body as the program of each rank. "
            "The run is returned at once and goes on without the notebook; with --wait, and always in a shell, "
            "the command ends with the run. A cell with --return waits too, then assigns the names. "
            "TIME is a number of seconds, or 30s, 5m, 2h, 1d."
        ),
        examples=(
            "train fit epochs=5 lr=1e-3 --ranks 2",
            "train train.py data/ --ranks 1:4 -- --lr 0.1",
            "train fit --dry-run",
        ),
        words=True,
        arguments=(
            word("target", "TARGET", "function or script; none for a cell", kind="target"),
            *SPEC_FLAGS,
            flag(
                "return",
                "NAMES",
                "of a cell: variables of rank 0 to assign, as loss,model",
                python_names,
                dest="returns",
            ),
            _WAIT,
            flag("reuse", "", "take the last successful run of the same code with the same arguments, if there is one"),
            flag("dry-run", "", "show what would be sent, send nothing"),
        ),
    ),
    Verb(
        name="attach",
        help="show a run, live or finished, also from another kernel",
        arguments=(_RUN, flag("read-only", "", "a view without buttons"), _WAIT),
        examples=("attach", "attach fit --read-only"),
    ),
    Verb(
        name="runs",
        help="list the runs, newest first",
        arguments=(flag("limit", "N", "at most this many; default: 20", whole),),
        examples=("runs --limit 5",),
    ),
    Verb(
        name="logs",
        help="print what the ranks wrote",
        arguments=(
            _RUN,
            flag("rank", "N", "only this rank; default: all", whole),
            flag("tail", "N", "only the last lines", whole),
            flag("follow", "", "go on until the run ends"),
        ),
        examples=("logs --follow", "logs fit --rank 1 --tail 50"),
    ),
    Verb(name="stop", help="end a run; its checkpoints stay", arguments=(_RUN,), examples=("stop",)),
    Verb(
        name="pause",
        help="checkpoint and free the machine, to resume later",
        arguments=(_RUN,),
        examples=("pause fit",),
    ),
    Verb(
        name="resume",
        help="go on from the last checkpoint of a paused run",
        arguments=(_RUN,),
        examples=("resume fit",),
    ),
    Verb(
        name="scale",
        help="go on with another number of ranks, from a checkpoint",
        arguments=(_RUN, word("ranks", "RANKS", "new world size", whole, optional=False)),
        examples=("scale 4", "scale fit 1"),
    ),
    Verb(
        name="cluster",
        help="show, start or stop the processes that hold the runs",
        about=(
            "Stop ends runs at their next step if they reach it within seconds; attach resumes them from their last "
            "checkpoint. On Kubernetes each run has an engine of its own, which goes away when it is idle; start makes "
            "one ahead of the run."
        ),
        arguments=(
            word("action", "|".join(CLUSTER_ACTIONS), "default: status", action, kind="action"),
            flag("flavor", "NAME", "on Kubernetes: of the nodes to start, or of the engines to stop", kind="flavor"),
            flag("nodes", "N", "on Kubernetes: how many nodes to start; default: 1", whole),
        ),
        examples=("cluster", "cluster stop", "cluster start --flavor gpu --nodes 2"),
    ),
    Verb(
        name="publish",
        help="freeze a notebook and serve it as an app",
        about="The notebook is executed first; when it fails you see why and the old release stays.",
        arguments=(
            word("notebook", "NOTEBOOK", "path of the notebook", kind="notebook", optional=False),
            flag("share", "PEOPLE", "who may open it, besides you: alice,bob", names, kind="people"),
            flag("title", "TEXT", "what people see; default: the notebook's first heading"),
            flag("slug", "NAME", "last part of its address; default: from the notebook's name"),
            flag("include", "PATH", "a file or folder that it needs; several times", kind="path", many=True),
            flag("flavor", "NAME", "CPUs, memory and GPUs of the app; default: the catalog's default", kind="flavor"),
        ),
        examples=("publish demo.ipynb --share guest", "publish demo.ipynb --include data/"),
    ),
    Verb(
        name="unpublish",
        help="take an app away",
        arguments=(word("app", "APP", "its name, as in the list", kind="app", optional=False),),
        examples=("unpublish demo",),
    ),
    Verb(name="apps", help="list your apps", examples=("apps",)),
    Verb(
        name="doctor",
        help="look for what is wrong here, and say what to do about it",
        about=(
            "One line per check: Python, torch, disk, ports, engine, hub. On a cluster also rights, operator, home, "
            "image and quota, and whether network policies are enforced at all. In a shell the exit code is 1 when "
            "something is wrong."
        ),
        examples=("doctor",),
    ),
)

VERBS = {verb.name: verb for verb in _ALL}
