"""The page with the results: tables, ratios, goals, and the machine that they were measured on."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from importlib.metadata import version
from pathlib import Path

import psutil

PACKAGES = ("torch", "distributed", "accelerate", "lightning", "jupyterhub")
COLUMNS = {"first": "launch → first step, s", "total": "20 steps in all, s", "cpu": "CPU, s"}

INTRO = """# Benchmarks

Written by `make bench`. All launchers take turns in one run: each of the {rounds} rounds starts a fresh session per
launcher, always with the same work. A session is a Python process that has imported torch, like a notebook that defines
a model. The work is DDP over 2 ranks on gloo with one thread each. **Cold** is the session's first launch, including
the tool's own imports and start; **warm** launches are those after it. Times are medians (range). CPU seconds count the
session and all processes that it started, including the engine, until the launch ends; on a shared machine they say
more than wall time.

Measured {date} in {minutes:.0f} minutes on {machine}; load average before a launch {load}.
{versions}.{failed}

"""
STEPS = """## Steps

The time of one step with the same compute for all launchers: matrix multiplications that take 5 ms ({burn5} of them) or
50 ms ({burn50}) on one undisturbed core of this machine, and the exchange of gradients. Ratios are taken within each
round. "With context" reports two numbers in each step and checkpoints every 10 s; it is timed from step to step, the
other launchers inside the step.

"""
GOALS = """## Goals

"""


def render(rows: list[dict], figures: list[dict], burns: dict[int, int], rounds: int, seconds: float) -> str:
    """Return the page as Markdown."""
    loads = [row["load"] for row in rows]
    parts = [
        INTRO.format(
            rounds=rounds,
            date=datetime.datetime.now(datetime.UTC).date(),
            minutes=seconds / 60,
            machine=_machine(),
            load=f"{statistics.median(loads):.1f} ({min(loads):.1f}-{max(loads):.1f})",
            failed=_failed(rows),
            versions=", ".join(f"{name} {version(name)}" for name in PACKAGES),
        ),
        "## Launches\n\n",
        _launches(rows),
        STEPS.format(burn5=burns[5], burn50=burns[50]),
        _steps(rows),
        GOALS,
        _goals(rows, {figure["name"]: figure for figure in figures}),
        "## All figures of the engine\n\n",
        _figures(figures),
    ]
    return "".join(parts).rstrip() + "\n"


def _failed(rows: list[dict]) -> str:
    failed = {peer: sum(row["failed_before"] for row in rows if row["peer"] == peer) for peer in _peers(rows)}
    counts = ", ".join(f"{peer} {count}" for peer, count in failed.items() if count)
    return f" Launches that aborted and were repeated: {counts}." if counts else ""


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} CPUs ({_processor()}), {memory:.0f} GiB, {system}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def _pick(rows: list[dict], peer: str, kind: str, column: str) -> list[float]:
    return [row[column] for row in rows if row["peer"] == peer and row["kind"] == kind]


def _peers(rows: list[dict]) -> list[str]:
    return list(dict.fromkeys(row["peer"] for row in sorted(rows, key=lambda row: row["round"])))


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def _ratio(rows: list[dict], peer: str, kind: str, column: str, base: str = "torchrun") -> float:
    """Return the ratio of a peer's median to torchrun's median of the same kind."""
    return statistics.median(_pick(rows, peer, kind, column)) / statistics.median(_pick(rows, base, kind, column))


def _step_ratio(rows: list[dict], peer: str, kind: str, column: str = "step_ms") -> list[float]:
    """Return the ratio of a peer's step to torchrun's step, for each round."""
    steps = {(row["peer"], row["round"]): row[column] for row in rows if row["kind"] == kind}
    return [steps[name, number] / steps["torchrun", number] for name, number in steps if name == peer]


def _table(head: list[str], body: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n\n"


def _launches(rows: list[dict]) -> str:
    body = []
    for kind in ("cold", "warm"):
        for peer in _peers(rows):
            if values := _pick(rows, peer, kind, "first"):
                cells = [_spread(_pick(rows, peer, kind, column)) for column in COLUMNS]
                ratios = [f"{_ratio(rows, peer, kind, column):.3f}" for column in ("first", "cpu")]
                body.append([peer, kind, str(len(values)), *cells, *ratios])
    return _table(["launcher", "kind", "n", *COLUMNS.values(), "first step ÷ torchrun", "CPU ÷ torchrun"], body)


def _steps(rows: list[dict]) -> str:
    body = [
        [
            peer,
            kind,
            _spread(values),
            _spread(_step_ratio(rows, peer, kind, "step_ms")),
            _spread(_pick(rows, peer, kind, "step_cpu_ms")),
            _spread(_step_ratio(rows, peer, kind, "step_cpu_ms")),
        ]
        for kind in ("5 ms", "50 ms")
        for peer in _peers(rows)
        if (values := _pick(rows, peer, kind, "step_ms"))
    ]
    return _table(["launcher", "compute", "step, ms", "÷ torchrun", "CPU of rank 0 per step, ms", "÷ torchrun"], body)


def _goals(rows: list[dict], figures: dict[str, dict]) -> str:
    def figure(name: str) -> float:
        return float(figures[name]["median"])

    left = ("processes", "notebook_files", "engine_files", "ports")
    goals = [
        ("warm launch → first step ÷ torchrun", _ratio(rows, "cnai", "warm", "first"), 0.05, ""),
        ("CPU seconds of a warm launch ÷ torchrun", _ratio(rows, "cnai", "warm", "cpu"), 0.07, ""),
        ("cold launch → first step ÷ torchrun", _ratio(rows, "cnai", "cold", "first"), 1.0, ""),
        (
            "first launch after warm-up",
            statistics.median(_pick(rows, "cnai after %load_ext", "cold", "first")),
            0.3,
            " s",
        ),
        (
            "CPU of rank 0 per step at 50 ms ÷ torchrun",
            statistics.median(_step_ratio(rows, "cnai", "50 ms", "step_cpu_ms")),
            1.03,
            "",
        ),
        ("step at 50 ms ÷ torchrun", statistics.median(_step_ratio(rows, "cnai", "50 ms")), 1.03, ""),
        ("`%load_ext cnai`", figure("load_ext_seconds"), 0.1, " s"),
        ("report → notebook at 1,000 reports/s, p99", figure("report_p99_ms"), 100, " ms"),
        ("reports lost", figure("reports_lost"), 0, ""),
        ("a rank's exception → the cell", figure("exception_to_cell_seconds"), 1.0, " s"),
        ("SIGKILL of a rank → next step", figure("sigkill_to_step_seconds"), 1.0, " s"),
        ("Dask worker, resident", figure("dask_worker_rss_mb"), 80, " MB"),
        ("idle rank, unique", figure("idle_rank_unique_mb"), 10, " MB"),
        (
            "left after 100 runs: processes, files, ports",
            sum(max(0, figure(f"hundred_runs_more_{name}")) for name in left),
            0,
            "",
        ),
        ("resident memory of the notebook after 100 runs, more", figure("hundred_runs_more_notebook_mb"), 5, " MB"),
    ]
    body = [
        [name, f"{value:.3g}{unit}", f"≤ {goal:g}{unit}", "yes" if value <= goal else "no"]
        for name, value, goal, unit in goals
    ]
    return _table(["what", "measured", "goal", "reached"], body)


def _figures(figures: list[dict]) -> str:
    body = [
        [figure["name"].replace("_", " "), f"{figure['median']:.4g}", f"{figure['low']:.4g} to {figure['high']:.4g}"]
        for figure in figures
    ]
    return _table(["figure", "median", "range"], body)
