"""Environment variables of cnai, each declared once: its name, default and meaning, and who sets it.

The tables in docs/reference.md are generated from this list. An empty variable counts as unset.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from cnai import labels
from cnai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

Setter = Literal["people", "hub", "engine", "workbench", "author", "app", "tests"]
"""Who sets a variable: people, one of our own processes for another, or a developer for the tests."""

_OF_THE_HUB = ("JUPYTERHUB_", "JUPYTER_TOKEN", "JPY_", "CONFIGPROXY_", "CNAI_HUB_", "CNAI_APPS_")
_OF_A_KERNEL = {"MPLBACKEND", "PYTHONSTARTUP", "CNAI_APP", "CNAI_RELEASE", "CNAI_RUNS_TAKEN"}
_LIMITS = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
_AT_IMPORT = ("DASK_", "KMP_", "MKL_", "OMP_", "PYTHON", "PYTORCH_", "TORCH")
_TO_FIND_PACKAGES = {"PYTHONPATH", "PYTHONHOME", "PYTHONNOUSERSITE", "PYTHONUSERBASE"}

OF_THE_MACHINE = (
    *("HOME", "HOST", "HOSTNAME", "LOGNAME", "OLDPWD", "PATH", "PWD", "SHELL", "TEMP", "TMP", "TMPDIR", "USER"),
    *("CUDA_HOME", "CUDA_PATH", "CUDA_VERSION", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
    *("DISPLAY", "PYTHONHOME", "PYTHONPATH", "TORCHINDUCTOR_CACHE_DIR", "VIRTUAL_ENV", "WAYLAND_DISPLAY"),
    *(
        "CNAI_",
        "CONDA_",
        "DASK_",
        "DBUS_",
        "JUPYTER_",
        "KUBERNETES_",
        "LD_",
        "NVIDIA_",
        "SLURM_",
        "SSH_",
        "XDG_RUNTIME_",
    ),
)
"""Variables that describe a machine: ranks on another machine have those of their node.

Each is a name, or the beginning of names with an underscore at its end.
"""


@dataclass(frozen=True, slots=True)
class Variable(Generic[T]):
    """A variable; `elsewhere` has the defaults of backends that differ from the local backend.

    `shown` is the default in the docs, if that says more than the value.
    """

    name: str
    meaning: str
    parse: Callable[[str], T]
    default: T
    setter: Setter = "people"
    shown: str = ""
    elsewhere: Mapping[str, T] = field(default_factory=dict)

    def get(self, backend: str = "local") -> T:
        """Return this process's value, by default the backend's default."""
        given = os.environ.get(self.name)
        return self.parse(given) if given else self.elsewhere.get(backend, self.default)

    def __str__(self) -> str:
        return self.name


def _text(name: str, meaning: str, default: str = "", *, shown: str = "", setter: Setter = "people") -> Variable[str]:
    return Variable(name, meaning, str, default, setter, shown)


def _flag(name: str, meaning: str, *, setter: Setter) -> Variable[bool]:
    return Variable(name, meaning, bool, default=False, setter=setter)


def _seconds(name: str, meaning: str, default: float, **elsewhere: float) -> Variable[float]:
    def parse(given: str) -> float:
        try:
            seconds = float(given)
        except ValueError:
            seconds = -1
        if not 0 <= seconds < float("inf"):
            raise UsageError(f"{name} must be a number of seconds, 0 or more; given: {given!r}")
        return seconds

    return Variable(name, meaning, parse, default, elsewhere=elsewhere)


def _port(name: str, meaning: str, default: int, lowest: int, setter: Setter = "people") -> Variable[int]:
    def parse(given: str) -> int:
        if not (given.isascii() and given.isdecimal() and lowest <= int(given) <= 65535):
            raise UsageError(f"{name} must be a number between {lowest} and 65535; given: {given!r}")
        return int(given)

    return Variable(name, meaning, parse, default, setter)


HOME = _text("CNAI_HOME", "folder of everything that belongs to one person", "~/cnai")
STORE = _text("CNAI_STORE", "folder of the runs; every node must reach it under this path", shown="$CNAI_HOME/runs")
CATALOG = _text(
    "CNAI_CATALOG",
    "the list of images and flavors: a file, or JSON text; a hub on Kubernetes sets it to a person's part of the list",
    shown="images/catalog.toml",
)
BACKEND = _text(
    "CNAI_BACKEND", "where nodes come from when a run names no backend; a hub on Kubernetes sets it", "local"
)
NODE_SECONDS = _seconds(
    "CNAI_NODE_SECONDS",
    "how long a run waits for its nodes, which on Kubernetes may have to be added and to pull their image",
    60,
    kubernetes=600,
)
IDLE_SECONDS = _seconds(
    "CNAI_IDLE_SECONDS",
    "how long an engine without a run is kept; on Kubernetes it holds GPUs that others may wait for",
    3600,
    kubernetes=60,
)
TRIAL_SECONDS = _seconds("CNAI_TRIAL_SECONDS", "how long a notebook may run before it is published", 600)
PORT = _port("CNAI_PORT", "port of the hub on one machine, on loopback", 8000, 1024)
PERSON = _text("CNAI_PERSON", "login name of the owner of the hub on one machine", shown="the account's name")

IMAGE = _text("CNAI_IMAGE", "name of the image that this server runs", setter="hub")
IMAGE_REFERENCE = _text("CNAI_IMAGE_REFERENCE", "reference under which Kubernetes pulls that image", setter="hub")
FLAVOR = _text("CNAI_FLAVOR", "name of the flavor that this server has", setter="hub")
NAMESPACE = _text("CNAI_NAMESPACE", "Kubernetes namespace of the person", setter="hub")
HOME_CLAIM = _text("CNAI_HOME_CLAIM", "volume claim of the person's home", labels.HOME_CLAIM, setter="hub")
EXTRAS = _text("CNAI_EXTRAS", "settings of the administrator that the pods of runs have, too, as JSON", setter="hub")
HUB_URL = _text("CNAI_HUB_URL", "address of the hub, with a slash at its end", setter="hub")
APPS_CREATORS = _text("CNAI_APPS_CREATORS", "group whose members may publish", setter="hub")
APPS_IN_PODS = _flag("CNAI_APPS_IN_PODS", "apps are pods, which can't reach their author's files", setter="hub")
APPS_TERMINAL_OWNER = _text(
    "CNAI_APPS_TERMINAL_OWNER", "person for whom a terminal on this machine may publish", setter="hub"
)
ENGINE = _text("CNAI_ENGINE", "name of the engine that this process belongs to", setter="engine")
HTTP_PORT = _port(
    "CNAI_HTTP_PORT", "port at which an engine's pod answers probes and the operator", 8787, 0, setter="engine"
)
RUN_ID = _text("CNAI_RUN_ID", "run that this rank belongs to", setter="engine")
GENERATION = _text("CNAI_GENERATION", "generation that this rank belongs to", setter="engine")
WORKBENCH = _text("CNAI_WORKBENCH", "home of the workbench that started this process", setter="workbench")
RUNS_TAKEN = _text("CNAI_RUNS_TAKEN", "file in which a trial notes the runs that its notebook shows", setter="author")
RELEASE = _text(
    "CNAI_RELEASE", "record of the release that this kernel serves, with the runs that it shows", setter="app"
)
APP = _flag("CNAI_APP", "this kernel runs as an app, or tries one: it neither stops runs nor publishes", setter="app")

CHROMIUM = _text("CNAI_CHROMIUM", "the browser that tests drive", shown="Chromium in PATH", setter="tests")
CLUSTER_CACHE = _text("CNAI_CLUSTER_CACHE", "builds of `make cluster`", "~/.cache/cnai-cluster", setter="tests")
CLUSTER_DIR = _text("CNAI_CLUSTER_DIR", "folder for the state of that cluster", "/var/lib/cnai-cluster", setter="tests")
CLUSTER_IMAGE = _text("CNAI_CLUSTER_IMAGE", "a small Debian for tests", "debian:bookworm-slim", setter="tests")
CLUSTER_REGISTRY = _text("CNAI_CLUSTER_REGISTRY", "registry from which another cluster pulls", setter="tests")
FAKE_GPUS = _text("CNAI_FAKE_GPUS", "GPUs that the cluster of `make cluster` pretends to have", "32", setter="tests")
Z2JH_CHART = _text("CNAI_Z2JH_CHART", "the chart of Zero to JupyterHub, to render the values with", setter="tests")
PICTURES = _text("CNAI_PICTURES", "folder for the pictures of the docs", setter="tests")

VARIABLES: tuple[Variable[str] | Variable[float] | Variable[int] | Variable[bool], ...] = tuple(
    declared for declared in list(globals().values()) if isinstance(declared, Variable)
)


def without_hub(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of programs that run people's code: without the variables that give access to the hub."""
    return {name: value for name, value in environment.items() if not name.startswith(_OF_THE_HUB)}


def for_engine(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of an engine, which serves other kernels than the one that happens to start it.

    Its processes read neither that kernel's settings of Dask, Python and torch, nor a server's limits and secrets.
    """
    return {
        name: value
        for name, value in without_hub(environment).items()
        if name not in _OF_A_KERNEL and not (name.startswith(_AT_IMPORT) and name not in _TO_FIND_PACKAGES)
        if not (name in _LIMITS and FLAVOR.name in environment)
        # An app's kernel goes without packages of its author's home.
        if not (name == "PYTHONNOUSERSITE" and APP.name in environment)
    }


def for_run(environment: Mapping[str, str], at_start: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that travel with a run of this kernel or shell.

    A server's limits are its hub's: they travel only if they were changed since this process started.
    """
    internal = {variable.name for variable in VARIABLES if variable.setter != "people"}
    limits = _LIMITS if FLAVOR.name in environment else ()
    before = _at_start() if at_start is None else at_start
    return {
        name: value
        for name, value in without_hub(environment).items()
        if name not in internal and name != "PYTHONSTARTUP"
        if not (name == "MPLBACKEND" and value.startswith("module://"))  # draws into a notebook
        if not (name in limits and before.get(name) == value)
    }


def for_ranks(node: Mapping[str, str], run: Mapping[str, str], *, here: bool) -> dict[str, str]:
    """Return the environment of ranks: the run's variables, and those of the node that a run can't replace.

    `here` tells whether the run was started where the ranks are, on this machine and in this container.
    """
    if here:
        return {**{name: value for name, value in node.items() if name.startswith("CNAI_")}, **run}
    services = {
        name.removesuffix("PORT")
        for name, value in run.items()
        if name.endswith("_PORT") and value.startswith(("tcp://", "udp://", "sctp://"))
    }
    own = {
        name: value
        for name, value in without_hub(node).items()
        if name != "OMP_NUM_THREADS" and not name.startswith("DASK_")
    }
    beginnings = tuple(name for name in OF_THE_MACHINE if name.endswith("_"))
    beginnings += tuple(f"{service}{part}" for service in services for part in ("PORT_", "SERVICE_"))
    names = {*OF_THE_MACHINE, *(f"{service}PORT" for service in services)}
    return own | {name: value for name, value in run.items() if name not in names and not name.startswith(beginnings)}


def machine() -> str:
    """Return a name for this machine, container and account: programs with the same name see the same files."""
    try:
        boot, files = (
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            str(Path("/proc/self/ns/mnt").readlink()),
        )
    except OSError:
        boot, files = socket.gethostname(), ""
    return f"{boot} {files} {os.geteuid()}"


def _at_start() -> dict[str, str]:
    """Return the environment in which this process started."""
    try:
        found = os.fsdecode(Path("/proc/self/environ").read_bytes())
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in found.split("\0") if "=" in line)
