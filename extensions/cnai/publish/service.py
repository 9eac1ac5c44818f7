"""The hub's apps service, as a notebook server (or the owner's terminal) asks it."""

from __future__ import annotations

import json
import os
from typing import IO, TYPE_CHECKING, Any

from cnai import paths
from cnai.errors import HubError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

_START = "start it with `make run`, or publish from a notebook server of a hub"


def ask(method: str, path: str, body: Any = None) -> httpx.Response:
    """Ask, with JSON if any."""
    import httpx

    try:
        with _client() as client:
            return client.request(method, path, json=body)
    except httpx.HTTPError as error:
        raise _silent(error) from None


def send(path: str, body: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Send a file from where it stands and return the JSON lines of the answer, as they come."""
    import httpx

    begin = body.tell()
    headers = {"Content-Type": "application/x-tar", "Content-Length": str(body.seek(0, os.SEEK_END) - begin)}
    body.seek(begin)
    try:
        with _client() as client, client.stream("POST", path, content=body, headers=headers) as reply:
            if reply.is_error:
                reply.read()
                fine(reply)
            for line in reply.iter_lines():
                yield json.loads(line)
    except httpx.HTTPError as error:
        raise _silent(error) from None


def fine(reply: httpx.Response) -> httpx.Response:
    """Raise what the service refused with, in its own words."""
    if not reply.is_error:
        return reply
    try:
        text = str(reply.json()["error"])
    except (ValueError, KeyError, TypeError):
        text = f"the hub refused ({reply.status_code} {reply.reason_phrase})"
    raise (UsageError if reply.status_code == 400 else HubError)(text)


def _hub() -> tuple[str, str]:
    """Return the hub's address and a token: a notebook server's own, else the workbench owner's on this machine."""
    if token := os.environ.get("JUPYTERHUB_API_TOKEN"):
        url = os.environ.get("CNAI_HUB_URL")
        if not url:
            raise HubError("this hub has no apps service; ask whoever runs it to configure cnai_hub.apps")
        return url, token
    try:
        known = json.loads((paths.home() / "hub" / "client.json").read_text())
        return known["hub_url"], known["token"]
    except (OSError, ValueError, KeyError):
        raise HubError(f"there is no hub to publish on; {_START}") from None


def _client() -> httpx.Client:
    import httpx

    url, token = _hub()
    # No proxy from the environment: the hub is on this machine, or on the same cluster. No read timeout for publishing
    # is needed, since the service says something every few seconds.
    return httpx.Client(
        base_url=f"{url}services/apps/", headers={"Authorization": f"token {token}"}, timeout=60, trust_env=False
    )


def _silent(error: Exception) -> HubError:
    return HubError(f"the hub at {_hub()[0]} does not answer ({type(error).__name__}); {_START}")
