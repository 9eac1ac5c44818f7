"""Client of the hub's apps service, for a notebook server or the owner's terminal."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, TypeVar

from cnai import appwire, environment, paths
from cnai.errors import HubError, UsageError
from cnai.records import Record
from cnai.tables import Mistake

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

_Read = TypeVar("_Read", bound=Record)

_START = "start it with `make run`, or publish from a notebook server of a hub"


def ask(method: str, path: str, body: Record | None = None) -> httpx.Response:
    """Send a request, with a record as its body if given."""
    import httpx

    try:
        with _client() as client:
            return client.request(method, path, json=body and body.plain())
    except httpx.HTTPError as error:
        raise _no_answer(error) from None


def send(path: str, body: IO[bytes]) -> Iterator[appwire.Progress | appwire.Published | appwire.Refusal]:
    """Send a file from its current position; yield the facts of the answer as they arrive."""
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
                yield appwire.publication(line)
    except httpx.HTTPError as error:
        raise _no_answer(error) from None
    except Mistake as mistake:
        raise _other_version(mistake) from None


def read(kind: type[_Read], reply: httpx.Response) -> _Read:
    """Return the record in the service's answer, or raise its refusal."""
    try:
        return kind.from_json(fine(reply).content)
    except Mistake as mistake:
        raise _other_version(mistake) from None


def fine(reply: httpx.Response) -> httpx.Response:
    """Return a successful answer, or raise the service's refusal with its own message."""
    if not reply.is_error:
        return reply
    try:
        text = appwire.Refusal.from_json(reply.content).error
    except Mistake:
        text = f"the hub refused ({reply.status_code} {reply.reason_phrase})"
    raise (UsageError if reply.status_code == 400 else HubError)(text)


def _hub() -> tuple[str, str]:
    """Return the hub's address and a token: the notebook server's, otherwise the workbench owner's on this machine."""
    if token := os.environ.get("JUPYTERHUB_API_TOKEN"):
        url = environment.HUB_URL.get()
        if not url:
            raise HubError("this hub has no apps service; ask its administrator to install one")
        return url, token
    try:
        known = appwire.Terminal.from_json((paths.home() / "hub" / "client.json").read_bytes())
    except (OSError, Mistake):
        raise HubError(f"found no hub to publish to; {_START}") from None
    return known.hub_url, known.token


def _client() -> httpx.Client:
    import httpx

    url, token = _hub()
    # No proxy from the environment: the hub is on this machine or on the same cluster. The timeout also suits
    # publishing, since the service reports every few seconds.
    return httpx.Client(
        base_url=f"{url}services/apps/", headers={"Authorization": f"token {token}"}, timeout=60, trust_env=False
    )


def _no_answer(error: Exception) -> HubError:
    return HubError(f"the hub at {_hub()[0]} does not answer ({type(error).__name__}); {_START}")


def _other_version(mistake: Mistake) -> HubError:
    return HubError(f"the hub at {_hub()[0]} runs another version of cnai ({mistake}); update the older one")
