"""Runs: start one, find one, and what people do with it."""

from cnai.run.handle import Run
from cnai.run.launch import cluster_start, cluster_status, cluster_stop, plan, train, train_cell, warm_up
from cnai.run.search import attach, find, runs
from cnai.run.series import Series

for _shown in (Run, Series):
    _shown.__module__ = __name__  # where people import them from, and what views register for

__all__ = [
    "Run",
    "Series",
    "attach",
    "cluster_start",
    "cluster_status",
    "cluster_stop",
    "find",
    "plan",
    "runs",
    "train",
    "train_cell",
    "warm_up",
]
