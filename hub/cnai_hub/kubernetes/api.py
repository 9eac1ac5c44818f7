"""The hub's client of the API server: it takes and returns plain objects, and explains refusals in plain words.

It uses KubeSpawner's client, which this process has anyway. A second client, such as kr8s, would take 20 MiB and read
its own tokens; the client in `cnai.backends.kubernetes.api` blocks, and is on a floor that the hub doesn't import.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp

from cnai import reasons
from cnai.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnai.foreign import Manifest

_FIELD_MANAGER = "cnai-hub"
_PLURALS = {"NetworkPolicy": "networkpolicies"}
_SECONDS = 15.0
_NOT_FOUND, _CONFLICT, _UNAUTHORIZED = 404, 409, 401


class Refused(HubError):
    """A request that the API server refused; `status` is the HTTP status, 0 if the server didn't answer."""

    def __init__(self, sentence: str, status: int) -> None:
        self.status = status
        super().__init__(sentence)


class Api:
    """Sends requests to the API server through a client of kubernetes_asyncio, which has the address and token."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def get(self, path: str, **query: str) -> Manifest | None:
        """Return an object or a list; None if it doesn't exist."""
        try:
            return await self._ask("GET", path, query=query)
        except Refused as refused:
            if refused.status == _NOT_FOUND:
                return None
            raise

    async def create(self, manifest: Manifest) -> bool:
        """Create an object; return False if one with its name exists already."""
        try:
            await self._ask("POST", _collection(manifest), manifest)
        except Refused as refused:
            if refused.status == _CONFLICT:
                return False
            raise
        return True

    async def apply(self, manifest: Manifest) -> None:
        """Create an object or change it to match the manifest, also in fields that others manage."""
        query = {"fieldManager": _FIELD_MANAGER, "force": "true"}
        await self._ask("PATCH", path_of(manifest), manifest, query=query, kind="application/apply-patch+yaml")

    async def _ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        kind: str = "application/json",
    ) -> Manifest:
        try:
            answer = await self._client.call_api(
                path,
                method,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": kind},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=_SECONDS,
            )
            content = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Refused(f"Kubernetes doesn't answer ({type(error).__name__}); try again in a minute", 0) from None
        if answer.status >= 400:
            raise refused(answer.status, content.decode(errors="replace"))
        # Parsing a list of all pods of a large cluster takes half a second, which would block the hub's event loop.
        found: Manifest = await asyncio.to_thread(json.loads, content)
        return found


def refused(status: int, body: str) -> Refused:
    """Return the exception for an error response of the API server."""
    if status == _UNAUTHORIZED:
        sentence = "Kubernetes doesn't accept the hub's token (expired?); ask your administrator to restart the hub"
        return Refused(sentence, status)
    return Refused(reasons.of_refusal(body), status)


def path_of(manifest: Manifest) -> str:
    """Return the path of an object."""
    return f"{_collection(manifest)}/{manifest['metadata']['name']}"


def _collection(manifest: Manifest) -> str:
    version = manifest["apiVersion"]
    plural = _PLURALS.get(manifest["kind"]) or f"{manifest['kind'].lower()}s"
    namespace = manifest["metadata"].get("namespace")
    inside = f"namespaces/{namespace}/" if namespace else ""
    return f"{'/apis' if '/' in version else '/api'}/{version}/{inside}{plural}"
