"""Client of the API server, with this process's credentials: plain objects in and out, one line per refusal.

Uses httpx: in a notebook's kernel the `kubernetes` package takes 17 MiB and kr8s 20 MiB of memory for the same few
requests, httpx 4 MiB; and images don't need 70 MiB of generated code.
"""

from __future__ import annotations

import logging
import os
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cnai import labels, reasons
from cnai.backends.kubernetes import access, manifests
from cnai.errors import EngineError

if TYPE_CHECKING:
    import httpx

    from cnai.backends.kubernetes.access import Access

PATIENCE_SECONDS = 10
DASK = f"apis/{labels.DASK_GROUP}/{labels.DASK_VERSION}"
_MERGE = {"Content-Type": "application/merge-patch+json"}
_NOT_FOUND, _TOO_MANY_REQUESTS, _SERVER_ERROR = 404, 429, 500


class Refused(EngineError):
    """The API server refused a request; the message gives the reason in one line, `status` is the HTTP status."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(reasons.of_refusal(body))
        self.status = status
        self.is_absent = status == _NOT_FOUND and body.lstrip().startswith("{")
        """Whether the object doesn't exist; for an unknown kind of object the API server's answer isn't JSON."""


class Away(EngineError):
    """The API server does not answer now; a later request may succeed."""


class Api:
    """One namespace of a cluster, with the rights of this process's account. Thread-safe; never retries."""

    def __init__(self, given: Access) -> None:
        self._access = given
        self._dask = f"{DASK}/namespaces/{given.namespace}"

    @property
    def namespace(self) -> str:
        """Return the namespace of the engines."""
        return self._access.namespace

    def engines(self) -> list[dict[str, Any]]:
        """Return the DaskClusters that are engines."""
        return self._items(f"{self._dask}/daskclusters", labels.FLAVOR)

    def engine(self, name: str) -> dict[str, Any] | None:
        """Return an engine's DaskCluster, None if there is none."""
        return self._find(f"{self._dask}/daskclusters/{name}")

    def create(self, manifest: dict[str, Any]) -> None:
        """Create a DaskCluster."""
        self.ask(f"{self._dask}/daskclusters", manifest)

    def delete(self, name: str) -> bool:
        """Delete an engine's DaskCluster and everything that it owns; tell whether it existed."""
        return self._find(f"{self._dask}/daskclusters/{name}", "DELETE") is not None

    def node_count(self, name: str) -> int | None:
        """Return how many nodes an engine should have, None before the operator has created its worker group."""
        found = self._find(self._scale(name))
        return None if found is None else int(found["spec"]["replicas"])

    def scale(self, name: str, nodes: int) -> None:
        """Set how many nodes an engine should have."""
        self.ask(self._scale(name), {"spec": {"replicas": nodes}}, method="PATCH")

    def pods(self, engine: str) -> list[dict[str, Any]]:
        """Return an engine's pods as JSON objects; the pods of all engines if the name is empty."""
        return self._items(self.core("pods"), f"{labels.DASK_CLUSTER}={engine}" if engine else labels.DASK_CLUSTER)

    def is_left_of(self, engine: str) -> bool:
        """Tell whether objects other than pods still exist that the operator created for an engine."""
        listed = (f"apis/apps/v1/namespaces/{self.namespace}/deployments", self.core("services"))
        selector = f"{labels.DASK_CLUSTER}={engine}"
        return self.node_count(engine) is not None or any(self._items(path, selector) for path in listed)

    def events(self) -> list[dict[str, Any]]:
        """Return the events of the namespace as JSON objects."""
        return self._items(self.core("events"))

    def core(self, kind: str) -> str:
        """Return the path of a kind of object in the core API."""
        return f"api/v1/namespaces/{self.namespace}/{kind}"

    def ask(
        self, path: str, body: dict[str, Any] | None = None, *, method: str = "", selector: str = ""
    ) -> dict[str, Any]:
        """Return the API server's answer to a request: POST if there is a body, otherwise GET."""
        import httpx

        headers = {**self._access.headers(), **(_MERGE if method == "PATCH" else {})}
        query = {"labelSelector": selector} if selector else None
        asked = method or ("POST" if body else "GET")
        try:
            reply = self._client.request(asked, path, params=query, json=body, headers=headers)
            if reply.status_code >= _SERVER_ERROR or reply.status_code == _TOO_MANY_REQUESTS:
                raise Away(f"the API server can't answer now ({reply.status_code} {reply.reason_phrase})")
            if not reply.is_success:
                raise Refused(reply.status_code, reply.text or reply.reason_phrase)
            answer: dict[str, Any] = reply.json()
        except (httpx.HTTPError, OSError, ValueError) as error:
            cause = f"{type(error).__name__} at {self._access.url}"
            raise Away(f"the API server does not answer ({cause})") from None
        return answer

    def _find(self, path: str, method: str = "GET") -> dict[str, Any] | None:
        try:
            return self.ask(path, method=method)
        except Refused as refused:
            if refused.is_absent:
                return None
            raise

    def _items(self, path: str, selector: str = "") -> list[dict[str, Any]]:
        return list(self.ask(path, selector=selector)["items"])

    def _scale(self, name: str) -> str:
        return f"{self._dask}/daskworkergroups/{manifests.node_group(name)}/scale"

    @cached_property
    def _client(self) -> httpx.Client:
        import httpx

        client = httpx.Client(
            base_url=self._access.url,
            timeout=PATIENCE_SECONDS,
            verify=self._access.trust(),
            trust_env=not self._access.inside,
        )
        # httpx logs every request at INFO; a notebook with logging.basicConfig would show two lines a second.
        ours = str(client.base_url)
        logging.getLogger("httpx").addFilter(lambda record: ours not in record.getMessage())
        return client


_connected: dict[str, Api] = {}
_lock = threading.Lock()


def connect() -> Api:
    """Return this process's client of the API server, one for each value of KUBECONFIG."""
    where = os.environ.get("KUBECONFIG", "")
    with _lock:
        if where not in _connected:
            _connected[where] = Api(access.here())
        return _connected[where]
