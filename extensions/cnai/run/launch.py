"""Launch: captures a target, validates its spec and starts a run."""

from __future__ import annotations

import getpass
import os
import platform
import threading
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnai import backends, environment
from cnai.errors import UsageError
from cnai.paths import compiled_dir, store_root
from cnai.run import pins
from cnai.run.handle import Run
from cnai.run.reuse import finished, remember
from cnai.spec import Interval, Ranks, RunSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cnai.engine.capture import Captured
    from cnai.engine.records import Environment, Record, Room
    from cnai.foreign import Manifest

RECORDED_PACKAGES = ("cnai", "torch", "numpy", "distributed", "cloudpickle")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Plan:
    """The spec, manifest and payload that `train` would send."""

    spec: RunSpec
    manifest: Manifest | None
    """The manifest that would start nodes, None if the backend sends none."""
    payload_bytes: int
    code_zip_bytes: int
    code_hash: str
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        from cnai.engine.records import readable

        return readable(self)


def train(
    target: Callable[..., Any] | str | Path,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    reuse: bool = False,
    **spec: Any,
) -> Run:
    """Train a function, or a script with its arguments; returns at once.

    With `reuse` it returns the last successful run of the same code with the same values, if there is one: arguments,
    values that the code uses, local modules, ranks, image and env. Keywords are the fields of RunSpec: ranks, nodes,
    flavor, image, backend, name, checkpoint_every, retries, infra_retries, timeout_seconds, grace_seconds,
    stall_seconds, deadline_seconds, ttl_seconds, env, debug. The debug backend runs rank 0 in this process, with
    breakpoints, and returns at its end.
    """
    captured = capture(target, args, kwargs or {})
    if not reuse:
        return _start(captured, spec)
    found, why = finished(captured, build_spec(captured, spec))
    if found is None:
        if callable(target) and (name := _unsteady(target, args, kwargs or {})):
            why = f"{name!r} can't be compared, because it is pickled differently each time"
        if why:
            _warn(f"nothing to reuse: {why}; this is a new run", stacklevel=3)
        found = _start(captured, spec)
    remember(found)
    return found


def train_cell(
    source: str, namespace: dict[str, Any], *, returns: Sequence[str] = (), cell_name: str = "", **spec: Any
) -> Run:
    """Run a notebook cell's body in each rank; `result()` returns a dict of the names in `returns`."""
    from cnai.engine.capture import capture_cell

    return _start(capture_cell(source, namespace, returns=tuple(returns), cell_name=cell_name), spec)


def plan(
    target: Callable[..., Any] | str | Path,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    **spec: Any,
) -> Plan:
    """Return the plan of a run without starting it."""
    captured = capture(target, args, kwargs or {})
    built = build_spec(captured, spec)
    backend = backends.get(built.backend)
    return Plan(
        spec=built,
        manifest=backend.preview(backend.check(built)),
        payload_bytes=len(captured.payload),
        code_zip_bytes=len(captured.code_zip),
        code_hash=captured.code_hash,
        warnings=captured.warnings,
    )


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


def _unsteady(target: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    from cnai.engine.capture import unsteady

    return unsteady(target, tuple(args), kwargs)


def _start(captured: Captured, given: dict[str, Any]) -> Run:
    from cnai.backends.backend import Draft
    from cnai.engine.store import Store

    spec = build_spec(captured, given)
    backend = backends.get(spec.backend)
    record = _record(captured, backend.check(spec))
    draft = Draft(
        store=Store(store_root()), spec=spec, record=record, captured=captured, environment=_environment(os.environ)
    )
    run = Run(backend.begin(draft))
    pins.started(run.id)
    if not run.state.final:
        run.follow(revive=False)
    for warning in captured.warnings:
        _warn(warning)
    return run


def _record(captured: Captured, room: Room) -> Record:
    from cnai.engine.records import Record

    return Record(
        who=os.environ.get("JUPYTERHUB_USER") or getpass.getuser(),
        cwd=str(Path.cwd()),
        code_hash=captured.code_hash,
        python=platform.python_version(),
        packages={name: _version(name) for name in RECORDED_PACKAGES},
        image=environment.IMAGE.get(),
        room=room,
    )


def _environment(variables: Mapping[str, str]) -> Environment:
    from cnai.engine.records import Environment

    found = {**environment.for_run(variables), "TORCHINDUCTOR_CACHE_DIR": compiled_dir(variables)}
    return Environment(machine=environment.machine(), variables=found)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _warn(text: str, stacklevel: int = 4) -> None:
    import warnings

    warnings.warn(text, stacklevel=stacklevel)


def warm_up() -> None:
    """Start the local engine and load what the first run needs, in the background; returns at once."""

    def prepare() -> None:
        from cnai.errors import CnaiError

        try:
            backends.get(backends.default()).prepare()
            import cnai.engine.capture  # noqa: F401
        except (CnaiError, OSError):
            return  # the first run reports the problem

    threading.Thread(target=prepare, name="cnai-warm-up", daemon=True).start()
