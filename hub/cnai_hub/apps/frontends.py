"""Front-ends of widgets: the labextensions of this environment that an app's page loads, and the ones that it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_core.paths import jupyter_path
from jupyterlab_server.config import get_federated_extensions

if TYPE_CHECKING:
    from collections.abc import Iterable

_BASE = "@jupyter-widgets/base"
# Voila's own manager of widgets replaces JupyterLab's, and needs its modules.
_MANAGERS = ("@voila-dashboards/widgets-manager8", "@jupyter-widgets/jupyterlab-manager")
_ALWAYS = (*_MANAGERS, "anywidget")
# Modules that the managers themselves provide.
_BUILT_IN = (_BASE, "@jupyter-widgets/controls", "@jupyter-widgets/output")


def served() -> list[str]:
    """Return the labextensions that draw widgets and outputs; others, which expect a whole JupyterLab, break a page."""
    return [*_ALWAYS, *(name for name, found in _installed().items() if _draws(found) and name not in _ALWAYS)]


def lacking(modules: Iterable[str]) -> list[str]:
    """Return the modules of widgets for which no served labextension exists."""
    found = _installed()
    folders = [Path(found[name]["ext_path"]) for name in served() if name in found]
    unnamed = set(modules) - {*_BUILT_IN, *served()}
    # An extension usually has the name of the module that it provides; some provide several.
    return sorted(module for module in unnamed if not any(_mentions(folder, module) for folder in folders))


def _installed() -> dict[str, Any]:
    found: dict[str, Any] = get_federated_extensions(jupyter_path("labextensions"))
    return {name: about for name, about in found.items() if not name.startswith("@voila-dashboards/")}


def _draws(extension: dict[str, Any]) -> bool:
    lab = extension.get("jupyterlab") or {}
    uses = {*(lab.get("sharedPackages") or {}), *(extension.get("dependencies") or {})}
    return bool(lab.get("mimeExtension")) or _BASE in uses


def _mentions(folder: Path, module: str) -> bool:
    quoted = [f"{quote}{module}{quote}" for quote in "\"'"]
    scripts = (script.read_text(errors="replace") for script in folder.glob("static/*.js"))
    return any(name in script for script in scripts for name in quoted)
