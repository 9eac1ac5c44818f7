"""App processes: what an app's server starts on one machine, fixed by its name and its release, never by options."""

from __future__ import annotations

import os
import sys

from cnai import catalog, environment, paths, programs
from cnai_hub import profiles
from cnai_hub.apps.releases import Store, read_release, slug_of


def app_command(server_name: str, owner: str) -> list[str] | None:
    """Return the command that serves the current release, None for a server that is no published app."""
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
    """Return what an app server needs in its environment, on top of what every server gets."""
    slug = slug_of(server_name)
    store = Store(paths.home() / "apps")
    app = store.get(owner, slug) if slug else None
    release = read_release(store.folder(owner, app.slug), app.current) if app else None
    if release is None:
        return {}
    return {**_share(release.flavor), environment.HOME.name: str(paths.home()), "JUPYTERHUB_ACTIVITY_INTERVAL": "60"}


def _share(flavor: str) -> dict[str, str]:
    """Return what holds an app to its share of the machine; one without a flavor of its own may take what there is."""
    if not flavor:
        return {}
    chosen = profiles.choose(profiles.Choice(flavor=flavor), catalog.load(), catalog.this_machine())
    return profiles.environment(chosen, os.environ.get("CUDA_VISIBLE_DEVICES"))
