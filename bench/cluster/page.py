"""The results on a cluster, as a part of the page."""

from __future__ import annotations

import datetime
import statistics

HEAD = "## On a cluster"
INTRO = """{head}

Written by `make bench-cluster`: measured on one cluster, with the same image, in turns ({rounds} rounds). Plain
KubeSpawner is the stock chart's, with the same limits and a home. The bare KubeCluster has the same operator and the
same pods, which run Dask's own programs; unlike a node of a run, its worker does not import PyTorch, which takes about
two seconds of CPU together with the modules that optimizers and the elastic agent need. A node is killed without a
grace period. Times are medians (range).

Measured {date} in {minutes:.0f} minutes on {where}.

"""


def render(rows: list[dict], rounds: int, seconds: float, where: str = "") -> str:
    """Return the page's part as Markdown."""
    from bench.page import _machine, _table

    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row["name"], []).append(row["value"])
    body = [[name, str(len(found)), _spread(found)] for name, found in values.items() if name != "left"]
    text = INTRO.format(
        head=HEAD,
        rounds=rounds,
        date=datetime.datetime.now(datetime.UTC).date(),
        minutes=seconds / 60,
        where=where or _machine(),
    )
    return (
        text + _table(["what", "n", "seconds"], body) + _table(["what", "measured", "goal", "reached"], _goals(values))
    )


def joined(page: str, part: str) -> str:
    """Append the part to a page, in place of an older one."""
    return page.partition(f"\n{HEAD}\n")[0].rstrip() + "\n\n" + part.rstrip() + "\n"


def kept(page: str) -> str:
    """Return a page's part with the results on a cluster, empty if it has none."""
    _, found, part = page.partition(f"\n{HEAD}\n")
    return f"\n{HEAD}\n{part}" if found else ""


def _goals(values: dict[str, list[float]]) -> list[list[str]]:
    def median(name: str) -> float:
        return statistics.median(values[name])

    spawn = median("spawn, ours") / median("spawn, plain")
    nothing = median("from nothing: train → first step") - median("from nothing: bare KubeCluster → first answer")
    killed = median("killed node → next step") - median("killed node → bare Dask worker is back")
    goals = [
        ("spawn → ready ÷ plain KubeSpawner", spawn, 1.05, ""),
        ("`%cnai train` on a live engine → first step", median("live: train → first step"), 1, " s"),
        ("from nothing → first step, more than a bare KubeCluster", nothing, 2, " s"),
        ("killed node → next step, more than a bare Dask worker", killed, 2, " s"),
        ("left over: namespaces, pods, claims, volumes, services, bindings", median("left"), 0, ""),
    ]
    return [
        [name, f"{value:.3g}{unit}", f"≤ {goal:g}{unit}", "yes" if value <= goal else "no"]
        for name, value, goal, unit in goals
    ]


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"
