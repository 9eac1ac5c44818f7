"""The pages of a hub: their templates, and the page that people see after login."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, select_autoescape

from cnai import paths
from cnai_hub.roles import APPS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnai_hub import profiles


def install(c: Any, creators: str) -> None:
    """Add our templates to a hub; the administrator's own templates take precedence.

    Unless the administrator has set `default_url`, people who are neither administrators nor in the group `creators`
    land on the list of apps.
    """
    own, variables = c.JupyterHub.get("template_paths"), c.JupyterHub.get("template_vars")
    c.JupyterHub.template_paths = [*(own if isinstance(own, list) else []), str(paths.shipped("templates/hub"))]
    # JupyterHub calls a callable with the viewer of the page; on a server's pages, `user` is the owner of the server.
    c.JupyterHub.template_vars = {
        **(variables if isinstance(variables, dict) else {}),
        "viewer": lambda viewer: viewer,
    }
    if "default_url" not in c.JupyterHub:
        c.JupyterHub.default_url = _landing(creators)


def options(offer: profiles.Offer) -> str:
    """Return the HTML that shows an offer on the spawn page."""
    folder = paths.shipped("templates/hub")
    environment = Environment(loader=FileSystemLoader(folder), autoescape=select_autoescape())
    return environment.get_template("options.html").render(offer=offer)


def _landing(creators: str) -> Callable[[Any], str]:
    def landing(handler: Any) -> str:
        user = handler.current_user
        # Test groups, not scopes: during a login the handler doesn't have the user's scopes yet.
        if user is None or user.admin or creators in {group.name for group in user.groups}:
            return ""
        return f"{handler.base_url}services/{APPS}/"

    return landing
