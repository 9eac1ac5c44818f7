"""App processes: the process of an app's server on one machine, determined by name and release, never by options."""

from __future__ import annotations

import os
import sys

from cnai import catalog, environment, paths, programs
from cnai_hub import profiles
from cnai_hub.apps.releases import Store, read_release, slug_of


def app_command(server_name: str, owner: str) -> list[str] | None:
    """Return the command that serves the current release, None if the server is not a published app."""
    slug = slug_of(server_name)
    store = Store(paths.home() / "apps")
    if slug is None or store.get(owner, slug) is None:
        return None
    return [sys.executable, "-m", programs.APP_SERVER, str(store.folder(owner, slug))]


def is_published(server_name: str, owner: str) -> bool:
    """Tell whether a server is a published app, even if it can't start."""
    slug = slug_of(server_name)
    return slug is not None and Store(paths.home() / "apps").has(owner, slug)


def app_environment(server_name: str, owner: str) -> dict[str, str]:
    """Return the environment variables of an app server, besides those of every server."""
    slug = slug_of(server_name)
    store = Store(paths.home() / "apps")
    app = store.get(owner, slug) if slug else None
    release = read_release(store.folder(owner, app.slug), app.current) if app else None
    if release is None:
        return {}
    return {**_share(release.flavor), environment.HOME.name: str(paths.home()), "JUPYTERHUB_ACTIVITY_INTERVAL": "60"}


def _share(flavor: str) -> dict[str, str]:
    """Return the variables that limit an app to its flavor; an app without a flavor may use the whole machine."""
    if not flavor:
        return {}
    chosen = profiles.choose(profiles.Choice(flavor=flavor), catalog.load(), catalog.this_machine())
    return profiles.environment(chosen, os.environ.get("CUDA_VISIBLE_DEVICES"))
