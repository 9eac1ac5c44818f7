"""Any cluster that KUBECONFIG names, through kubectl."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import time
from base64 import b64decode
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx
from onenode import images
from onenode.place import REGISTRY, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = "300s"
LISTS = {
    "deployments": "apis/apps/v1",
    **dict.fromkeys(["daskclusters", "daskworkergroups"], "apis/kubernetes.dask.org/v1"),
    **dict.fromkeys(["events", "pods", "resourcequotas", "services"], "api/v1"),
}
RESTRICTED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


class Refused(Exception):
    """kubectl failed; the message is its output."""


@dataclass(frozen=True)
class Cluster:
    """A cluster and its registry."""

    kubectl_path: str
    place: Place | None
    """Set when the cluster is the one that `make cluster` starts."""

    def kubectl(self, *words: str, given: object = None) -> str:
        """Run kubectl, with a manifest as its input if one is given."""
        more: dict[str, Any] = {"stdin": subprocess.DEVNULL} if given is None else {"input": json.dumps(given)}
        done = subprocess.run([self.kubectl_path, *words], text=True, capture_output=True, **more)
        if done.returncode:
            raise Refused(done.stderr.strip())
        return str(done.stdout)

    def get(self, *words: str) -> dict[str, Any]:
        """Return objects from the API server.

        It uses HTTP directly if possible, because tests poll: a kubectl process per call would take half a core.
        """
        client, (kinds, *options) = _client(self), words
        paths = [_path(kind, *options) for kind in kinds.split(",")]
        if client is None or not all(paths):
            return dict(json.loads(self.kubectl("get", *words, "-o", "json")))
        items = []
        for path in paths:
            try:
                answer = client.get(path)
            except httpx.HTTPError as error:
                raise Refused(repr(error)) from None
            if answer.is_error:
                raise Refused(answer.text)
            items += answer.json()["items"]
        return {"items": items}

    def create(self, manifest: dict[str, Any], namespace: str | None = None, *options: str) -> None:
        """Create an object; Refused with the API server's message if it refuses."""
        where = ["-n", namespace] if namespace else []
        self.kubectl("create", "-f", "-", *where, *options, given=manifest)

    def wait(self, what: str, condition: str, namespace: str) -> None:
        """Wait until a condition holds."""
        self.kubectl("wait", what, f"--for={condition}", f"--timeout={PATIENCE}", "-n", namespace)

    @property
    def base(self) -> str:
        """Return the reference of a small Debian image that both builds and pods can use."""
        if self.place is not None:
            with alone("base"):
                return images.debian(self.place)
        return os.environ.get("CNAI_CLUSTER_IMAGE", "debian:bookworm-slim")

    @property
    def registries(self) -> tuple[str, ...]:
        """Return the registries of all test images, so that one test's policy doesn't refuse another test's images."""
        return tuple({self.base.partition("/")[0], os.environ.get("CNAI_CLUSTER_REGISTRY", REGISTRY)})

    def publish(self, folder: Path, name: str) -> str | None:
        """Build and push a folder's Dockerfile, and return its reference; None without a registry to push to."""
        if self.place is not None:
            return images.build(self.place, folder, name, {"BASE": self.base})
        registry = os.environ.get("CNAI_CLUSTER_REGISTRY")
        if registry is None:
            return None
        image = f"{registry}/{name}"
        build = ["buildah", "bud", "--isolation=chroot", f"--build-arg=BASE={self.base}", "--tag", image, str(folder)]
        subprocess.run(build, check=True, capture_output=True)
        subprocess.run(["buildah", "push", "--quiet", image, f"docker://{image}"], check=True, capture_output=True)
        return image


@functools.cache
def _client(cluster: Cluster) -> httpx.Client | None:
    """Return a client of the API server; None if only kubectl knows how to log in there."""
    config = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    if "certificate-authority-data" not in server or not ("client-key-data" in user or "token" in user):
        return None
    context = ssl.create_default_context(cadata=b64decode(server["certificate-authority-data"]).decode())
    headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
    if "client-key-data" in user:
        with tempfile.NamedTemporaryFile() as file:
            file.write(b64decode(user["client-certificate-data"]) + b64decode(user["client-key-data"]))
            file.flush()
            context.load_cert_chain(file.name)
    return httpx.Client(base_url=server["server"], headers=headers, verify=context, trust_env=False, timeout=60)


def _path(kind: str, *options: str) -> str:
    """Return the API server's path for a list, "" if it is not one of the simple ones."""
    given = dict(zip(options[::2], options[1::2], strict=False))
    if kind not in LISTS or len(options) != 2 * len(given) or "-n" not in given or not given.keys() <= {"-n", "-l"}:
        return ""
    return f"{LISTS[kind]}/namespaces/{given['-n']}/{kind}?{urlencode({'labelSelector': given.get('-l', '')})}"


@contextmanager
def alone(what: str, *, others: bool = False) -> Iterator[None]:
    """Hold a lock against other processes of this machine; with `others`, only against those that want it alone."""
    folder = Place.from_environment().cache / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / what).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH if others else fcntl.LOCK_EX)
        yield


def rest(since: float) -> None:
    """Pause before polling again: constant calls of kubectl would take a core from the awaited work."""
    time.sleep(max(0.2, 3 * (time.monotonic() - since)))


def connect() -> Cluster | str:
    """Return KUBECONFIG's cluster, or why there is none."""
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig:
        return "no cluster: KUBECONFIG is not set; `make test-cluster` starts one and sets it"
    place = Place.from_environment()
    kubectl = shutil.which("kubectl") or shutil.which("kubectl", path=str(place.programs))
    if kubectl is None:
        return "kubectl is not in PATH; `make cluster` builds one"
    return Cluster(kubectl, place if Path(kubeconfig).resolve() == place.kubeconfig.resolve() else None)


def pod(name: str, image: str, command: list[str], **container: Any) -> dict[str, Any]:
    """Return a pod that the restricted standard admits, with these fields in its container."""
    main = {
        "name": "main",
        "image": image,
        "command": command,
        "securityContext": RESTRICTED,
        "resources": {"limits": {"cpu": "100m", "memory": "64Mi"}},
        **container,
    }
    spec = {
        "containers": [main],
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def gpus(count: int) -> dict[str, Any]:
    """Return the resources of a container with this many GPUs."""
    return {"limits": {"cpu": "100m", "memory": "64Mi", "nvidia.com/gpu": str(count)}}
