"""The first run: start a server from the catalog, train in a notebook, and publish it as an app."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from cnai import catalog, environment, paths, programs
from cnai.errors import HubError
from cnai_hub import profiles
from cnai_hub.local.client import follow, visit
from cnai_hub.local.configuration import GUEST
from cnai_hub.local.execution import run_notebook

if TYPE_CHECKING:
    from pathlib import Path

    from cnai_hub.local.client import HubClient
    from cnai_hub.local.credentials import Credentials
    from cnai_hub.local.steps import Steps

NOTEBOOK = "01-first-run.ipynb"
SLUG = "01-first-run"  # the slug that `cnai publish` derives from the name, so publishing again replaces the app
_MARKER = "first-run-done"
_PUBLISH_SECONDS = 600.0


def done(state: Path) -> bool:
    """Tell whether the first run has succeeded in this home."""
    return (state / _MARKER).exists()


def do(hub: HubClient, secrets: Credentials, state: Path, steps: Steps) -> None:
    """Do the first run, step by step; a failed step raises, and the next start tries again."""
    machine, shelf = catalog.this_machine(), catalog.load()
    profile = profiles.choose(profiles.Choice(), shelf, machine)
    with steps.step(f"notebook server: {profile.image.title}, {profile.flavor.title} ({profile.flavor})"):
        hub.start(choice=profiles.Choice(image=profile.image.name, flavor=profile.flavor.name))
        hub.wait_ready()
    with steps.step(f"{NOTEBOOK} runs in it, training over 2 ranks") as show:
        run_notebook(hub, NOTEBOOK, lambda done, of: show(f"cell {done}/{of}"))
    with steps.step("published as an app, shared with guest"):
        _publish()
    with steps.step("the app answers guest"):
        check_app(hub, secrets)
    (state / _MARKER).touch()


def check_app(hub: HubClient, secrets: Credentials) -> None:
    """Open the app as guest, with guest's password."""
    hub.start(f"app-{SLUG}")
    hub.wait_ready(f"app-{SLUG}")
    page = visit(hub.url, f"/user/{hub.person}/app-{SLUG}/", GUEST, secrets.guest_password)
    if page.status_code != 200 or not page.url.path.startswith(f"/user/{hub.person}/app-{SLUG}/"):
        raise HubError(f"the app answered guest with {page.status_code} at {page.url.path}")


def _publish() -> None:
    notebook = paths.home() / "notebooks" / NOTEBOOK
    command = [sys.executable, "-m", programs.COMMAND, "publish", str(notebook), "--share", GUEST]
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment.without_hub(os.environ),
        timeout=_PUBLISH_SECONDS,
        check=False,
    )
    if ended.returncode:
        raise HubError(f"publishing failed: {(ended.stderr or ended.stdout).strip().splitlines()[-1]}")


def check_notebook(link: str) -> None:
    """Open the person's link as a browser does, and check that the saved notebook contains a picture."""
    page = follow(link)
    if page.status_code != 200 or not page.url.path.endswith(f"/lab/tree/{NOTEBOOK}"):
        raise HubError(f"the person's link led to {page.status_code} at {page.url.path}")
    cells = json.loads((paths.home() / "notebooks" / NOTEBOOK).read_text())["cells"]
    kinds = {kind for cell in cells for output in cell.get("outputs", ()) for kind in output.get("data", ())}
    if not any(kind.startswith("image/") for kind in kinds):
        raise HubError(f"{NOTEBOOK} was saved without a picture; its outputs are: {', '.join(sorted(kinds)) or 'none'}")


def start_again(hub: HubClient, server: str = "") -> str:
    """Start a server that ran before; return why it failed, or an empty string."""
    try:
        hub.start(server)
        hub.wait_ready(server)
    except HubError as error:
        return str(error)
    return ""
