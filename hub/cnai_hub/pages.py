"""The pages of a hub: which templates they have, and where people arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, select_autoescape

from cnai import paths
from cnai_hub.roles import APPS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnai_hub import profiles


def install(c: Any, creators: str) -> None:
    """Give a hub our pages, after an administrator's own.

    Unless they say where people arrive, whoever is neither administrator nor in the group `creators` sees the apps.
    """
    own, variables = c.JupyterHub.get("template_paths"), c.JupyterHub.get("template_vars")
    c.JupyterHub.template_paths = [*(own if isinstance(own, list) else []), str(paths.shipped("templates/hub"))]
    # A callable gets whoever looks at the page; the `user` of a server's pages is whose server it is.
    c.JupyterHub.template_vars = {
        **(variables if isinstance(variables, dict) else {}),
        "viewer": lambda viewer: viewer,
    }
    if "default_url" not in c.JupyterHub:
        c.JupyterHub.default_url = _landing(creators)


def options(offer: profiles.Offer) -> str:
    """Return the part of the spawn page that shows an offer."""
    folder = paths.shipped("templates/hub")
    environment = Environment(loader=FileSystemLoader(folder), autoescape=select_autoescape())
    return environment.get_template("options.html").render(offer=offer)


def _landing(creators: str) -> Callable[[Any], str]:
    def landing(handler: Any) -> str:
        user = handler.current_user
        # Scopes would say it better, but while somebody logs in they are still those of nobody.
        if user is None or user.admin or creators in {group.name for group in user.groups}:
            return ""
        return f"{handler.base_url}services/{APPS}/"

    return landing
