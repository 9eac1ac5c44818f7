"""A small server that speaks the few paths of the Kubernetes API that engines need, and remembers what it was asked."""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

NAMESPACE = "cnai-ada"
_DASK = f"/apis/kubernetes.dask.org/v1/namespaces/{NAMESPACE}"
_CLUSTERS = re.compile(rf"{_DASK}/daskclusters(?:/(?P<name>[^/]+))?")
_SCALE = re.compile(rf"{_DASK}/daskworkergroups/(?P<name>.+)-default/scale")
_LISTS = re.compile(rf"/(api|apis/apps)/v1/namespaces/{NAMESPACE}/(?P<kind>pods|events|services|deployments)")


class ApiServer(ThreadingHTTPServer):
    """One namespace: `clusters` by name, their node counts, `pods`, `events`, and what else was made for a cluster."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.clusters: dict[str, dict[str, Any]] = {}
        self.replicas: dict[str, int] = {}
        self.pods: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.services: list[dict[str, Any]] = []
        self.deployments: list[dict[str, Any]] = []
        self.refusal: tuple[int, str] | None = None
        """Status and body of every answer to a POST, instead of doing it."""
        self.missing_kind = False
        """Whether nobody has told this server of Dask clusters."""
        self.asked: list[str] = []
        self.tokens: list[str | None] = []
        self.clients: list[str] = []
        """The names in the certificates of those who asked."""
        self.on_create = lambda _: None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def kubeconfig(self) -> str:
        """Return a kubeconfig for this server."""
        host = f"http://127.0.0.1:{self.server_address[1]}"
        named = {
            "clusters": [{"name": "c", "cluster": {"server": host}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}],
        }
        return json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "x", **named})

    def add(self, manifest: dict[str, Any], age_seconds: float = 0.0) -> None:
        """Have a DaskCluster and its group of nodes."""
        name = manifest["metadata"]["name"]
        born = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - age_seconds))
        manifest["metadata"]["creationTimestamp"] = born
        self.clusters[name] = manifest
        self.replicas[name] = manifest["spec"]["worker"]["replicas"]


class _Answers(BaseHTTPRequestHandler):
    server: ApiServer

    def _answer(self, status: int, body: Any) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        url = urlsplit(self.path)
        self.server.asked.append(f"{self.command} {url.path}")
        self.server.tokens.append(self.headers["Authorization"])
        if isinstance(self.connection, ssl.SSLSocket):
            subject = (self.connection.getpeercert() or {}).get("subject", ())
            self.server.clients += [value for ((key, value), *_) in subject if key == "commonName"]
        if found := _LISTS.fullmatch(url.path):
            self._answer(200, {"kind": "List", "items": self._selected(found["kind"], url.query)})
        elif self.server.missing_kind:
            self._answer(404, "404 page not found\n")
        elif found := _CLUSTERS.fullmatch(url.path):
            self._cluster(found["name"], body)
        elif found := _SCALE.fullmatch(url.path):
            self._scale(found["name"], body)
        else:
            self._answer(404, "404 page not found\n")

    do_GET = do_POST = do_DELETE = do_PATCH = _handle

    def _selected(self, kind: str, query: str) -> list[dict[str, Any]]:
        items = getattr(self.server, kind)
        key, _, value = parse_qs(query).get("labelSelector", [""])[0].partition("=")
        return [item for item in items if not value or item["metadata"]["labels"].get(key) == value]

    def _cluster(self, name: str | None, body: dict[str, Any] | None) -> None:
        server = self.server
        if self.command == "POST":
            assert body is not None
            if server.refusal is not None:
                self._answer(*server.refusal)
                return
            server.on_create(body)
            server.add(body)
            self._answer(201, body)
        elif name is None:
            self._answer(200, {"items": list(server.clusters.values())})
        elif name not in server.clusters:
            self._answer(404, {"kind": "Status", "message": f'daskclusters.kubernetes.dask.org "{name}" not found'})
        elif self.command == "DELETE":
            server.pods = [pod for pod in server.pods if pod["metadata"]["labels"]["dask.org/cluster-name"] != name]
            self._answer(200, server.clusters.pop(name))
        else:
            self._answer(200, server.clusters[name])

    def _scale(self, name: str, body: dict[str, Any] | None) -> None:
        if name not in self.server.clusters:
            self._answer(404, {"kind": "Status", "message": "not found"})
            return
        if body:
            self.server.replicas[name] = body["spec"]["replicas"]
        self._answer(200, {"spec": {"replicas": self.server.replicas[name]}})

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
