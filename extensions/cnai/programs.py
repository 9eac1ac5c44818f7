"""Programs: modules that are started or loaded by name, each declared once, since no import shows them.

These are commands, preloads, lazily loaded modules, and classes that JupyterHub loads. cnai and its hub don't import
each other's upper floors; if one starts the other as a process, the module is named here. A test loads all of them.
"""

from __future__ import annotations

COMMAND = "cnai.faces.cli"
"""The command line, run by the hub as `python -m …`: `cnai publish`, `cnai cluster stop`."""
ENGINE = "cnai.backends.local.engine"
ENGINE_POD = "cnai.backends.kubernetes.pod"
SUPERVISOR_PRELOAD = "cnai.engine.supervisor"
NODE_PRELOAD = "cnai.engine.node"
NODE_WARM_UP = "cnai.engine.node.preload"
FORKSERVER_PRELOAD = "cnai.engine.node.warm"
QUESTIONS = "cnai.engine.control.questions"
"""Routes of a scheduler's HTTP server; Dask loads them."""

RUN = "cnai.run"
"""Formatters refer to its `Run` by name, so that IPython needn't load the module."""

TRIAL = "cnai_hub.apps.trial"
"""Executes a notebook; needs packages that only servers have, so `cnai publish` starts it as a program."""
APPS_SERVICE = "cnai_hub.apps.service"
APP_SERVER = "cnai_hub.apps.server"
APP_POD = "cnai_hub.apps.server.fetch"
NOTEBOOK_POD = "cnai_hub.kubernetes.notebook"
OPERATOR = "cnai_hub.kubernetes.operator"
TENANTS = "cnai_hub.tenants"
"""Prints manifests for the administrator."""
WORKBENCH = "cnai_hub.local.workbench"

LOCAL_SPAWNER = "cnai_hub.local.spawner.CatalogSpawner"
LOCAL_LOGIN = "cnai_hub.local.login.LocalAuthenticator"
CLUSTER_SPAWNER = "cnai_hub.kubernetes.spawner.CatalogKubeSpawner"

STARTED = (
    COMMAND, ENGINE_POD, TRIAL, APPS_SERVICE, APP_SERVER, APP_POD, NOTEBOOK_POD, OPERATOR, TENANTS, WORKBENCH,
)  # fmt: skip
"""The modules that are started as `python -m …`."""
