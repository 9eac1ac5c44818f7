"""Runs: start one, find one, and what people do with it."""

from cnai.run.control import logs, pause, resume, scale, stop
from cnai.run.engines import Cluster, cluster
from cnai.run.handle import Run
from cnai.run.launch import Plan, plan, train, train_cell, warm_up
from cnai.run.search import attach, find, runs
from cnai.run.series import Series

for _shown in (Run, Series):
    _shown.__module__ = __name__  # where people import them from, and what views register for

__all__ = [
    "Cluster",
    "Plan",
    "Run",
    "Series",
    "attach",
    "cluster",
    "find",
    "logs",
    "pause",
    "plan",
    "resume",
    "runs",
    "scale",
    "stop",
    "train",
    "train_cell",
    "warm_up",
]
