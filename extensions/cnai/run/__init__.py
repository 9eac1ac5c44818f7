"""Run: starts, finds and controls runs."""

from cnai.run.control import logs, pause, resume, scale, stop
from cnai.run.engines import Cluster, cluster
from cnai.run.handle import Run
from cnai.run.launch import Plan, plan, train, train_cell, warm_up
from cnai.run.search import attach, find, runs
from cnai.run.series import Series

for _shown in (Run, Series):
    _shown.__module__ = __name__  # the module from which people import them and for which views register

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
