"""Verbs: the verbs with their arguments and help texts, as data."""

from __future__ import annotations

from dataclasses import dataclass

from cnai import environment
from cnai.grammar.arguments import (
    CLUSTER_ACTIONS,
    Argument,
    action,
    flag,
    pair,
    people,
    python_names,
    seconds,
    whole,
    word,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One action of cnai: `help` is half a sentence, `about` adds details, `examples` omit the leading `cnai`."""

    name: str
    help: str
    arguments: tuple[Argument, ...] = ()
    about: str = ""
    examples: tuple[str, ...] = ()
    words: bool = False
    """Whether more words may follow the positional arguments: the target's own parameters."""

    def flags(self) -> dict[str, Argument]:
        """Return the verb's flags, under each of their spellings."""
        return {name: argument for argument in self.arguments if argument.flag for name in argument.names}


SPEC_FLAGS = (
    flag("ranks", "N|MIN:MAX", "world size: a number, or a range; the run starts with as many ranks as fit"),
    flag("nodes", "N", "number of nodes that share the ranks; default: as few as the flavor allows", whole),
    flag("flavor", "NAME", "CPUs, memory and GPUs of each node: a name in the catalog", kind="flavor"),
    flag("image", "NAME", "software of the nodes: a name in the catalog; default: the notebook's", kind="image"),
    flag(
        "backend",
        "NAME",
        f"local, kubernetes, debug (one rank here) or tcp://HOST:PORT (Dask); default: ${environment.BACKEND} or local",
        kind="backend",
    ),
    flag("name", "TEXT", "display name of the run; default: the target's name"),
    flag("checkpoint-every", "STEPS|TIME", "interval of automatic checkpoints: 100 (steps), 30s, 5m"),
    flag("retries", "N", "maximum restarts after exceptions and exit codes without progress in between", whole),
    flag(
        "infra-retries",
        "N",
        "maximum restarts after lost nodes and ranks that a signal killed, without progress in between",
        whole,
    ),
    flag(
        "timeout",
        "TIME",
        "limit of one collective, a rank that waits longer fails; default: 120 s for cnai.context(), torch's own for "
        "groups that the code creates without a timeout",
        seconds,
        dest="timeout_seconds",
    ),
    flag(
        "grace",
        "TIME",
        "how long ranks that are asked to end may take, for a step or after SIGTERM, before they are killed",
        seconds,
        dest="grace_seconds",
    ),
    flag("stall", "TIME", "limit for the time without a step or report; default: none", seconds, dest="stall_seconds"),
    flag("deadline", "TIME", "limit for the whole run; default: none", seconds, dest="deadline_seconds"),
    flag("ttl", "TIME", "how long to keep the finished run; default: until removed", seconds, dest="ttl_seconds"),
    flag("env", "KEY=VALUE", "environment variable for each rank; repeatable", pair, many=True),
    flag("debug", "", "show complete tracebacks, including cnai's own frames"),
)
"""The flags that mirror RunSpec; `dest` is the name of its field."""

_RUN = word("run", "RUN", "the run's id, the start of its id, or its name; default: the latest", kind="run")
_WAIT = flag("wait/follow", "", "wait until the run ends; if the run fails, so does the cell")

_ALL = (
    Verb(
        name="train",
        help="train a function, a cell or a script over ranks",
        about=(
            "TARGET is a function in the notebook, or a script (a path that ends in .py). Words with = are parameters "
            "of a function: Python literals or expressions with the notebook's names. All words after a script are the "
            "script's arguments; put its flags after --. %%cnai train runs the cell's body in each rank. "
            "The command returns immediately and the run continues without the notebook; with --wait, and always in a "
            "shell, the command waits until the run ends. A cell with --return also waits, then assigns the names. "
            "TIME is a number of seconds, or 30s, 5m, 2h, 1d."
        ),
        examples=(
            "train fit epochs=5 lr=1e-3 --ranks 2",
            "train train.py data/ --ranks 1:4 -- --lr 0.1",
            "train fit --dry-run",
        ),
        words=True,
        arguments=(
            word("target", "TARGET", "function or script; omit it for a cell", kind="target"),
            *SPEC_FLAGS,
            flag(
                "return",
                "NAMES",
                "for a cell: names to assign in the notebook from rank 0, such as loss,model",
                python_names,
                dest="returns",
            ),
            _WAIT,
            flag("reuse", "", "return the last successful run of the same code with the same values, if any"),
            flag("dry-run", "", "show the run's spec without starting the run"),
        ),
    ),
    Verb(
        name="attach",
        help="show a live or finished run, from any kernel",
        arguments=(_RUN, flag("read-only", "", "a view without buttons"), _WAIT),
        examples=("attach", "attach fit --read-only"),
    ),
    Verb(
        name="runs",
        help="list the runs, newest first",
        arguments=(flag("limit", "N", "maximum number of runs; default: 20", whole),),
        examples=("runs --limit 5",),
    ),
    Verb(
        name="logs",
        help="print the output of the ranks",
        arguments=(
            _RUN,
            flag("rank", "N", "only this rank; default: all", whole),
            flag("tail", "N", "only the last N lines", whole),
            flag("follow", "", "continue until the run ends"),
        ),
        examples=("logs --follow", "logs fit --rank 1 --tail 50"),
    ),
    Verb(
        name="stop",
        help="stop a run; its checkpoints stay",
        about=(
            "Ranks receive SIGTERM and have the run's --grace to end; a second stop kills them at once. The run is "
            "CANCELLED, however its code ends."
        ),
        arguments=(_RUN,),
        examples=("stop",),
    ),
    Verb(
        name="pause",
        help="checkpoint a run and free the machine, to resume later",
        arguments=(_RUN,),
        examples=("pause fit",),
    ),
    Verb(
        name="resume",
        help="continue a paused run from its last checkpoint",
        arguments=(_RUN,),
        examples=("resume fit",),
    ),
    Verb(
        name="scale",
        help="continue a run from a checkpoint with a different number of ranks",
        arguments=(_RUN, word("ranks", "RANKS", "new world size", whole, optional=False)),
        examples=("scale 4", "scale fit 1"),
    ),
    Verb(
        name="cluster",
        help="show, start or stop the processes that hold the runs",
        about=(
            "Stop ends runs at their next step if they reach it within seconds; attach resumes them from their last "
            "checkpoint. On Kubernetes each run has its own engine, which is removed when it is idle; start creates "
            "an engine before the run."
        ),
        arguments=(
            word("action", "|".join(CLUSTER_ACTIONS), "default: status", action, kind="action"),
            flag("flavor", "NAME", "on Kubernetes: flavor of the nodes to start or the engines to stop", kind="flavor"),
            flag("nodes", "N", "on Kubernetes: number of nodes to start; default: 1", whole),
        ),
        examples=("cluster", "cluster stop", "cluster start --flavor gpu --nodes 2"),
    ),
    Verb(
        name="publish",
        help="freeze a notebook and serve it as an app",
        about=(
            "Publishing executes the notebook first; if that fails, cnai shows the error and the old release stays. "
            "Publishing again leaves the app shared as it is, unless --share or --private says otherwise."
        ),
        arguments=(
            word("notebook", "NOTEBOOK", "path of the notebook", kind="notebook", optional=False),
            flag(
                "share",
                "PEOPLE",
                "all users and groups who may open the app, besides you: alice,bob; others lose access",
                people,
                kind="people",
            ),
            flag("private", "", "share the app with nobody any more"),
            flag("title", "TEXT", "displayed title; default: the notebook's first heading"),
            flag("slug", "NAME", "last part of the app's address; default: from the notebook's name"),
            flag("replace", "", "replace the app of another notebook that has this name"),
            flag("include", "PATH", "a file or folder that the app needs; repeatable", kind="path", many=True),
            flag("flavor", "NAME", "CPUs, memory and GPUs of the app; default: the catalog's default", kind="flavor"),
        ),
        examples=("publish demo.ipynb --share guest", "publish demo.ipynb --include data/"),
    ),
    Verb(
        name="unpublish",
        help="remove an app",
        arguments=(word("app", "APP", "the app's name in the list of apps", kind="app", optional=False),),
        examples=("unpublish demo",),
    ),
    Verb(name="apps", help="list your apps", examples=("apps",)),
    Verb(
        name="doctor",
        help="find problems with this installation, and say how to fix them",
        about=(
            "Prints one line per check: Python, torch, disk, ports, engine, hub; on a cluster also rights, operator, "
            "home, image and quota, and whether network policies are enforced at all. In a shell the exit code is 1 if "
            "a check fails."
        ),
        examples=("doctor",),
    ),
)

VERBS = {verb.name: verb for verb in _ALL}
