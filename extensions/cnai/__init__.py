"""cnai: scaled-out torch training from a notebook.

Everything here loads on first use, so that `import cnai` and `%load_ext cnai` are cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnai.engine.training.context import Context, context
    from cnai.errors import CnaiError
    from cnai.faces import load_ipython_extension, unload_ipython_extension
    from cnai.faces.doctor import doctor
    from cnai.publishing.apps import apps, publish, unpublish
    from cnai.run import Run, attach, cluster, logs, pause, resume, runs, scale, stop, train
    from cnai.spec import RunSpec

__version__ = "0.1.0"

_HOMES = {
    "CnaiError": "cnai.errors",
    "Context": "cnai.engine.training.context",
    "Run": "cnai.run",
    "RunSpec": "cnai.spec",
    "apps": "cnai.publishing.apps",
    "attach": "cnai.run",
    "cluster": "cnai.run",
    "context": "cnai.engine.training.context",
    "doctor": "cnai.faces.doctor",
    "load_ipython_extension": "cnai.faces",
    "logs": "cnai.run",
    "pause": "cnai.run",
    "publish": "cnai.publishing.apps",
    "resume": "cnai.run",
    "runs": "cnai.run",
    "scale": "cnai.run",
    "stop": "cnai.run",
    "train": "cnai.run",
    "unload_ipython_extension": "cnai.faces",
    "unpublish": "cnai.publishing.apps",
}

__all__ = [
    "CnaiError",
    "Context",
    "Run",
    "RunSpec",
    "apps",
    "attach",
    "cluster",
    "context",
    "doctor",
    "load_ipython_extension",
    "logs",
    "pause",
    "publish",
    "resume",
    "runs",
    "scale",
    "stop",
    "train",
    "unload_ipython_extension",
    "unpublish",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cnai' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
