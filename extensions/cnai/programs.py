"""Modules that something starts or loads by its name, each declared once: what an import can't show.

Commands, preloads, lazily loaded parts, and what JupyterHub loads for us. cnai and its hub don't import each other's
upper floors; where one starts the other as a process, the edge is here. A test loads every one of them.
"""

from __future__ import annotations

COMMAND = "cnai.faces.cli"
"""`python -m …`, as the hub runs it: `cnai publish`, `cnai cluster stop`."""
ENGINE = "cnai.backends.local.engine"
ENGINE_POD = "cnai.backends.kubernetes.pod"
SUPERVISOR_PRELOAD = "cnai.engine.supervisor"
NODE_PRELOAD = "cnai.engine.node"
NODE_WARM_UP = "cnai.engine.node.preload"
FORKSERVER_PRELOAD = "cnai.engine.node.warm"
QUESTIONS = "cnai.engine.control.questions"
"""Routes of a scheduler's HTTP server, which Dask loads."""

RUN = "cnai.run"
"""IPython prints its `Run` by name, so that the module needn't be loaded for it."""

TRIAL = "cnai_hub.apps.trial"
"""Executes a notebook; it needs packages that only servers have, so `cnai publish` starts it as a program."""
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
"""All that is started as `python -m …`."""
