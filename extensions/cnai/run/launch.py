"""Launch: from what was typed to a run that goes on."""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
import threading
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cnai import backends, environment
from cnai.errors import UsageError
from cnai.paths import store_root
from cnai.run.handle import Run
from cnai.run.search import finished, take
from cnai.spec import Interval, Ranks, RunSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cnai.backends import Fleet
    from cnai.engine.capture import Captured
    from cnai.engine.records import Record, Room

RECORDED_PACKAGES = ("cnai", "torch", "numpy", "distributed", "cloudpickle")


def train(
    target: Callable[..., Any] | str | Path,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    reuse: bool = False,
    **spec: Any,
) -> Run:
    """Train a function, or a script with its arguments; returns at once.

    With `reuse` it returns the last successful run of the same code with the same arguments, if there is one. Values
    that the code takes from the notebook are not compared. Keywords are the fields of RunSpec: ranks, nodes, flavor,
    image, backend, name, checkpoint_every, retries, infra_retries, timeout_seconds, stall_seconds, deadline_seconds,
    ttl_seconds, env, debug. The debug backend runs rank 0 in this process, with breakpoints, and returns at its end.
    """
    captured = capture(target, args, kwargs or {})
    inputs = _inputs(captured, args, kwargs or {})
    found = (finished(captured.target.name, inputs) if reuse else None) or _start(captured, spec, inputs)
    if reuse:
        take(found)
    return found


def _inputs(captured: Captured, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return a hash of the code and its arguments."""
    import cloudpickle

    return hashlib.sha256(captured.code_hash.encode() + cloudpickle.dumps((tuple(args), dict(kwargs)))).hexdigest()[:32]


def train_cell(
    source: str, namespace: dict[str, Any], *, returns: Sequence[str] = (), cell_name: str = "", **spec: Any
) -> Run:
    """Train a notebook cell's body on each rank; `result()` is the dict of the names in `returns`."""
    from cnai.engine.capture import capture_cell

    return _start(capture_cell(source, namespace, returns=tuple(returns), cell_name=cell_name), spec)


def plan(
    target: Callable[..., Any] | str | Path,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """Return what `train` would send, without sending it."""
    captured = capture(target, args, kwargs or {})
    built = build_spec(captured, spec)
    backend = backends.get(built.backend)
    room = backend.check(built)
    made = cast("Fleet", backend).manifest(f"{room.flavor}-0000", room) if backend.self_healing else None
    return {
        "spec": built,
        **({"manifest": made} if made else {}),
        "payload_bytes": len(captured.payload),
        "code_zip_bytes": len(captured.code_zip),
        "code_hash": captured.code_hash,
        "warnings": captured.warnings,
    }


def capture(target: Callable[..., Any] | str | Path, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Captured:
    """Freeze a function with its arguments, or a script."""
    from cnai.engine.capture import capture_function, capture_script

    if isinstance(target, str | Path):
        if kwargs:
            raise UsageError(f"a script takes arguments as words, not {', '.join(kwargs)}; pass them as args")
        return capture_script(Path(target), tuple(str(arg) for arg in args))
    return capture_function(target, tuple(args), dict(kwargs))


def build_spec(captured: Captured, given: dict[str, Any]) -> RunSpec:
    """Build and validate the spec from keywords as people write them."""
    fields = {key: value for key, value in given.items() if value is not None}
    unknown = fields.keys() - RunSpec.__dataclass_fields__.keys()
    if unknown:
        known = ", ".join(sorted(RunSpec.__dataclass_fields__.keys() - {"target"}))
        raise UsageError(f"unknown keyword {', '.join(sorted(unknown))}; allowed: {known}")
    if "ranks" in fields:
        fields["ranks"] = Ranks.parse(fields["ranks"])
    if "checkpoint_every" in fields:
        fields["checkpoint_every"] = Interval.parse(fields["checkpoint_every"])
    return RunSpec(target=captured.target, **fields)


def _start(captured: Captured, given: dict[str, Any], inputs: str = "") -> Run:
    from cnai.engine.store import Store

    spec = build_spec(captured, given)
    backend = backends.get(spec.backend)
    room = backend.check(spec)
    store, record = Store(store_root()), _record(captured, room, inputs)
    if spec.backend == "debug":
        from cnai.backends import debug

        return Run(debug.run(store, spec, record, captured))
    with backend.claim(room) as engine:
        run = Run(store.create(spec, replace(record, engine=engine), captured.payload, captured.code_zip))
        run.begin()
    for warning in captured.warnings:
        _warn(warning)
    return run


def _record(captured: Captured, room: Room, inputs: str) -> Record:
    from cnai.engine.records import Record

    return Record(
        who=os.environ.get("JUPYTERHUB_USER") or getpass.getuser(),
        cwd=str(Path.cwd()),
        code_hash=captured.code_hash,
        inputs_hash=inputs,
        python=platform.python_version(),
        packages={name: _version(name) for name in RECORDED_PACKAGES},
        image=environment.IMAGE.get(),
        room=room,
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _warn(text: str) -> None:
    import warnings

    warnings.warn(text, stacklevel=4)


def warm_up() -> None:
    """Start the local engine and load what the first run needs, in the background; returns at once."""

    def prepare() -> None:
        from cnai.errors import CnaiError

        try:
            backends.get(backends.default()).prepare()
            import cnai.engine.capture  # noqa: F401
        except (CnaiError, OSError):
            return  # the first run says what is wrong

    threading.Thread(target=prepare, name="cnai-warm-up", daemon=True).start()


def cluster_start(flavor: str | None = None, nodes: int | None = None) -> dict[str, Any]:
    """Start an engine before a run needs it; returns the status."""
    return backends.house(backends.default()).start(flavor, nodes)


def cluster_status() -> dict[str, Any]:
    """Return the local engine's address, pid, nodes and runs, or the engines on Kubernetes; {} if none runs."""
    return backends.house(backends.default()).status()


def cluster_stop(flavor: str | None = None) -> bool:
    """End the engines with everything on them; runs that go on are resumed by `attach`."""
    return backends.house(backends.default()).stop(flavor)
