"""The API server, as far as engines need it: their DaskClusters, and what their pods say. Every refusal is one line."""

from __future__ import annotations

import functools
import os
import threading
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from cnai import reasons
from cnai.backends.kubernetes import manifests
from cnai.errors import EngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    import kubernetes.client
    from kubernetes.client.exceptions import ApiException

    P = ParamSpec("P")
    T = TypeVar("T")

PATIENCE_SECONDS = 10
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_CLUSTERS = (manifests.GROUP, manifests.VERSION)


class Refused(EngineError):
    """The API server said no; the message says why in one line."""


class Away(EngineError):
    """The API server does not answer; it may a moment later."""


def _plainly(call: Callable[P, T]) -> Callable[P, T]:
    """Turn what goes wrong on the way into one line."""

    @functools.wraps(call)
    def plain(*args: P.args, **kwargs: P.kwargs) -> T:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return call(*args, **kwargs)
        except ApiException as error:
            if error.status is None or error.status >= 500 or error.status == 429:
                raise Away(f"the API server can't answer now ({error.status} {error.reason})") from None
            raise Refused(reasons.of_refusal(str(error.body or error.reason))) from None
        except (HTTPError, OSError) as error:
            raise Away(f"the API server does not answer ({type(error).__name__})") from None

    return plain


class Api:
    """One namespace of a cluster, as the account of this process may see it. Thread-safe."""

    def __init__(self, namespace: str, client: kubernetes.client.ApiClient) -> None:
        from kubernetes.client import AppsV1Api, CoreV1Api, CustomObjectsApi

        self.namespace = namespace
        self._plain = client.sanitize_for_serialization
        self._apps, self._core, self._custom = AppsV1Api(client), CoreV1Api(client), CustomObjectsApi(client)

    @_plainly
    def engines(self) -> list[dict[str, Any]]:
        """Return the DaskClusters that are engines."""
        found = self._custom.list_namespaced_custom_object(
            *_CLUSTERS,
            self.namespace,
            "daskclusters",
            label_selector=manifests.FLAVOR,
            _request_timeout=PATIENCE_SECONDS,
        )
        return cast("list[dict[str, Any]]", found["items"])

    @_plainly
    def engine(self, name: str) -> dict[str, Any] | None:
        """Return an engine's DaskCluster, None if there is none."""
        from kubernetes.client.exceptions import ApiException

        try:
            found = self._custom.get_namespaced_custom_object(
                *_CLUSTERS, self.namespace, "daskclusters", name, _request_timeout=PATIENCE_SECONDS
            )
        except ApiException as error:
            if _is_absent(error):
                return None
            raise
        return cast("dict[str, Any]", found)

    @_plainly
    def create(self, manifest: dict[str, Any]) -> None:
        """Create a DaskCluster."""
        self._custom.create_namespaced_custom_object(
            *_CLUSTERS, self.namespace, "daskclusters", manifest, _request_timeout=PATIENCE_SECONDS
        )

    @_plainly
    def delete(self, name: str) -> bool:
        """Delete an engine's DaskCluster and with it all that it made; tell whether there was one."""
        from kubernetes.client.exceptions import ApiException

        try:
            self._custom.delete_namespaced_custom_object(
                *_CLUSTERS, self.namespace, "daskclusters", name, _request_timeout=PATIENCE_SECONDS
            )
        except ApiException as error:
            if _is_absent(error):
                return False
            raise
        return True

    @_plainly
    def node_count(self, name: str) -> int | None:
        """Return how many nodes an engine should have, None as long as the operator has made no group of them."""
        from kubernetes.client.exceptions import ApiException

        try:
            found = self._custom.get_namespaced_custom_object_scale(
                *_CLUSTERS,
                self.namespace,
                "daskworkergroups",
                manifests.node_group(name),
                _request_timeout=PATIENCE_SECONDS,
            )
        except ApiException as error:
            if _is_absent(error):
                return None
            raise
        return int(found["spec"]["replicas"])

    @_plainly
    def scale(self, name: str, nodes: int) -> None:
        """Say how many nodes an engine should have."""
        self._custom.patch_namespaced_custom_object_scale(
            *_CLUSTERS,
            self.namespace,
            "daskworkergroups",
            manifests.node_group(name),
            {"spec": {"replicas": nodes}},
            _request_timeout=PATIENCE_SECONDS,
        )

    @_plainly
    def pods(self, engine: str) -> list[dict[str, Any]]:
        """Return an engine's pods, as the API server writes them; of all engines if the name is empty."""
        selector = f"{manifests.CLUSTER}={engine}" if engine else manifests.CLUSTER
        found = self._core.list_namespaced_pod(
            self.namespace, label_selector=selector, _request_timeout=PATIENCE_SECONDS
        )
        return cast("list[dict[str, Any]]", self._plain(found.items))

    @_plainly
    def is_left_of(self, engine: str) -> bool:
        """Tell whether something, pods aside, is still there that the operator made for an engine."""
        listed = (self._apps.list_namespaced_deployment, self._core.list_namespaced_service)
        selector = f"{manifests.CLUSTER}={engine}"
        return self.node_count(engine) is not None or any(
            ask(self.namespace, label_selector=selector, _request_timeout=PATIENCE_SECONDS).items for ask in listed
        )

    @_plainly
    def events(self) -> list[dict[str, Any]]:
        """Return the events of the namespace that warn, as the API server writes them, and those of pods."""
        found = self._core.list_namespaced_event(self.namespace, _request_timeout=PATIENCE_SECONDS)
        return cast("list[dict[str, Any]]", self._plain(found.items))


def _is_absent(error: ApiException) -> bool:
    """Tell whether an object is missing; a kind of object that is missing has another message, which is no JSON."""
    return error.status == 404 and str(error.body).lstrip().startswith("{")


_connected: dict[str, Api] = {}
_lock = threading.Lock()


def connect() -> Api:
    """Return the line to the API server, by the pod's own account or by KUBECONFIG; one per process and place."""
    where = os.environ.get("KUBECONFIG", "")
    with _lock:
        if where not in _connected:
            _connected[where] = _connect()
        return _connected[where]


def _connect() -> Api:
    from kubernetes import config
    from kubernetes.client import ApiClient, Configuration

    configuration = Configuration()
    inside = (_ACCOUNT / "token").exists() and "KUBECONFIG" not in os.environ
    try:
        if inside:
            config.load_incluster_config(client_configuration=configuration)
        else:
            # By name: the package looks at KUBECONFIG once, when it is imported.
            config.load_kube_config(_kubeconfig(), client_configuration=configuration)
    except (config.ConfigException, OSError) as error:
        raise UsageError(
            f"no Kubernetes here: {error}; start a server on the cluster, set KUBECONFIG, or use --backend local"
        ) from None
    configuration.retries = 0  # whoever asks decides whether to ask again
    return Api(_namespace(inside=inside), ApiClient(configuration))


def _namespace(*, inside: bool) -> str:
    if given := os.environ.get("CNAI_NAMESPACE"):
        return given
    if inside:
        return (_ACCOUNT / "namespace").read_text().strip()
    from kubernetes import config

    _, active = config.list_kube_config_contexts(_kubeconfig())
    return str(active["context"].get("namespace") or "default")


def seconds(text: str) -> float:
    """Return a time of the API server in seconds since 1970 (UTC)."""
    return datetime.fromisoformat(text).timestamp()


def _kubeconfig() -> str:
    return os.environ.get("KUBECONFIG") or "~/.kube/config"
