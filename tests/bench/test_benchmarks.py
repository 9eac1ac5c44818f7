"""The page of the benchmarks says what was measured, and compares like with like."""

import re
import sys
import time
from pathlib import Path

import pytest

from bench import page, work
from bench.meter import Meter
from bench.peers import PEERS

FIGURES = re.findall(r'figure\("([a-z0-9_]+)"\)', Path(page.__file__).read_text())
FIGURES += [f"hundred_runs_more_{name}" for name in ("processes", "notebook_files", "engine_files", "ports")]


def rows(slower: float):
    for number in range(2):
        for peer in PEERS.values():
            factor = slower if peer.name.startswith("cnai") else 1.0
            for kind in ("cold", "warm", "5 ms", "50 ms"):
                measured = dict.fromkeys(("first", "total", "cpu", "step_ms", "step_cpu_ms"), factor * (number + 1))
                yield {"peer": peer.name, "kind": kind, "round": number, "load": 0.5, "failed_before": 0, **measured}


def render(slower: float) -> str:
    figures = [{"name": name, "median": 0.0, "low": 0.0, "high": 0.0} for name in FIGURES]
    return page.render(list(rows(slower)), figures, {5: 14, 50: 140}, 2, 60.0)


@pytest.mark.parametrize(("slower", "reached"), [(0.04, "yes"), (0.5, "no")])
def test_goals_are_ratios_to_torchrun(slower, reached):
    goal = next(line for line in render(slower).splitlines() if line.startswith("| warm launch"))
    assert goal == f"| warm launch → first step ÷ torchrun | {slower:g} | ≤ 0.05 | {reached} |"


def test_step_ratios_are_taken_within_a_round():
    assert "| cnai | 50 ms | 3.00 (2.00-4.00) | 2.00 (2.00-2.00) | 3.00 (2.00-4.00) | 2.00 (2.00-2.00) |" in render(2.0)


def test_every_launcher_is_in_the_tables():
    text = render(1.0)
    assert all(
        f"| {peer.name} | {kind} |" in text for peer in PEERS.values() for kind in ("cold", "warm", "5 ms", "50 ms")
    )


@pytest.mark.usefixtures("starts_children")
def test_the_meter_counts_work_of_children():
    import subprocess

    meter = Meter()
    try:
        before = meter.seconds()
        subprocess.run([sys.executable, "-c", "sum(range(20_000_000))"], check=True)
        assert meter.seconds() > before + 0.05
    finally:
        meter.close()


def test_calibration_is_longer_for_longer_steps():
    assert work.calibrate(50) > work.calibrate(5) >= 1
    start = time.perf_counter()
    work.compute(1)
    assert time.perf_counter() > start


CLUSTER = {
    "spawn, ours": 10.0,
    "spawn, plain": 10.0,
    "live: train → first step": 0.9,
    "from nothing: train → first step": 12.0,
    "from nothing: bare KubeCluster → first answer": 11.0,
    "killed node → next step": 6.0,
    "killed node → bare Dask worker is back": 5.0,
    "left": 0,
}


def on_a_cluster(**changed: float) -> str:
    from bench.cluster import page as part

    rows = [{"name": name, "value": value} for name, value in {**CLUSTER, **changed}.items()]
    return part.render(rows, 1, 60.0)


def test_goals_on_a_cluster_are_differences_and_ratios():
    assert on_a_cluster().count("| yes |") == 5
    assert "| spawn → ready ÷ plain KubeSpawner | 1.2 | ≤ 1.05 | no |" in on_a_cluster(**{"spawn, ours": 12.0})
    assert "| 5 s | ≤ 2 s | no |" in on_a_cluster(**{"killed node → next step": 10.0})
    assert "| 2 | ≤ 0 | no |" in on_a_cluster(left=2)


def test_each_benchmark_keeps_the_others_part_of_the_page():
    from bench.cluster import page as part

    whole = part.joined(render(1.0), on_a_cluster())
    again = part.joined(whole, on_a_cluster(left=2))
    assert again.startswith(render(1.0).rstrip())
    assert again.count(part.HEAD) == 1
    assert render(2.0) + part.kept(again) == part.joined(render(2.0), on_a_cluster(left=2))
    assert part.kept(render(1.0)) == ""
