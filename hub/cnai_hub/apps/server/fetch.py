"""The first program in an app pod: it fetches its release from the apps service, then serves it.

The token is the server's own: it may report activity, authorize viewers, and fetch this one release. An error ends the
pod with one sentence, which the hub shows (`/dev/termination-log`).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import IO

import httpx

from cnai import environment, paths
from cnai.errors import CnaiError, HubError
from cnai.publication import RELEASES, SERVER_PREFIX
from cnai_hub.apps import bundle, snapshot
from cnai_hub.apps.releases import Store, read_app, slug_of

_REASON = Path("/dev/termination-log")
_TIMEOUT_SECONDS = 60.0
# Enough to survive a restart of the proxy or the service.
_ATTEMPTS = 5


def fetch(url: str, token: str, owner: str, server_name: str) -> Path:
    """Write the current release to this home's folder of apps, and return the app's folder; HubError if that fails."""
    slug = slug_of(server_name)
    if slug is None:
        raise HubError(f"{server_name!r} is not an app's server; the name of one starts with {SERVER_PREFIX!r}")
    folder = Store(paths.home() / "apps").folder(owner, slug)
    with tempfile.TemporaryFile() as body:
        _download(f"{url}services/apps/{RELEASES}/{slug}", token, body)
        body.seek(0)
        bundle.unpack(body, folder, snapshot.MOST_MEMBERS, snapshot.LONGEST)
    return folder


def _download(url: str, token: str, body: IO[bytes]) -> None:
    transport = httpx.HTTPTransport(retries=_ATTEMPTS)
    headers = {"Authorization": f"token {token}"}
    try:
        with (
            httpx.Client(transport=transport, timeout=_TIMEOUT_SECONDS, trust_env=False, headers=headers) as client,
            client.stream("GET", url) as reply,
        ):
            if reply.is_error:
                raise HubError(f"the app's release could not be fetched ({reply.status_code}); publish it again")
            for chunk in reply.iter_bytes():
                body.write(chunk)
                if body.tell() > snapshot.LONGEST:
                    raise HubError("the app's release is larger than an app may be")
    except httpx.HTTPError as error:
        raise HubError(f"the apps service does not answer ({type(error).__name__}); open the app again") from None


def place_runs(folder: Path) -> None:
    """Copy the runs of the release to the store where the app's notebook looks for runs."""
    app = read_app(folder)
    runs = folder / "releases" / str(app.current) / "runs" if app else folder
    if app and runs.is_dir():
        shutil.copytree(runs, paths.store_root(), dirs_exist_ok=True)


def main() -> None:
    """Fetch, then serve in this process."""
    try:
        folder = fetch(
            environment.HUB_URL.get(),
            os.environ["JUPYTERHUB_API_TOKEN"],
            os.environ["JUPYTERHUB_USER"],
            os.environ["JUPYTERHUB_SERVER_NAME"],
        )
        place_runs(folder)
    except (CnaiError, OSError) as error:
        if _REASON.exists():
            _REASON.write_text(str(error))
        sys.exit(str(error))
    from cnai_hub.apps.server import voila as server

    sys.argv[1:] = [str(folder)]
    server.main()


if __name__ == "__main__":
    main()
