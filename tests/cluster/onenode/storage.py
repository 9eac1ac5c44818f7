"""A provisioner: every claim of the default storage class gets a folder of the node, shared by all pods that mount it.

The volumes are local, like storage that an administrator attaches: root owns them until a pod's `fsGroup` changes that.
Sizes are not enforced.
"""

from __future__ import annotations

import http.client
import itertools
import json
import logging
import shutil
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

from onenode.place import NODE, NODE_IP, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CLASS = "cnai-local"
PROVISIONER = "cnai.test/local"
_CLAIMS, _VOLUMES = "/api/v1/persistentvolumeclaims", "/api/v1/persistentvolumes"
_AGAIN_SECONDS = 1.0
_log = logging.getLogger(__name__)


def storage_class() -> dict[str, Any]:
    """Return the default storage class."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


def volume(claim: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the volume that is bound to this claim and to no other."""
    metadata, spec = claim["metadata"], claim["spec"]
    this_node = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": folder.name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
        "spec": {
            "accessModes": spec["accessModes"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                **{key: metadata[key] for key in ("name", "namespace", "uid")},
            },
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [this_node]}},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": CLASS,
        },
    }


class Provisioner:
    """Creates volumes for claims, and deletes volumes whose claims no longer exist."""

    def __init__(self, place: Place) -> None:
        self._folders = place.state / "volumes"
        self._trust = ssl.create_default_context(cafile=place.state / "pki" / "ca.crt")
        self._trust.load_cert_chain(place.state / "pki" / "admin.crt", place.state / "pki" / "admin.key")

    def run(self) -> None:
        """Work until the process ends."""
        threading.Thread(target=self._follow, args=(_VOLUMES, self._clear), daemon=True).start()
        self._follow(_CLAIMS, self._provide)

    def _provide(self, claim: dict[str, Any]) -> None:
        spec = claim["spec"]
        if (
            spec.get("storageClassName") != CLASS
            or spec.get("volumeName")
            or claim["metadata"].get("deletionTimestamp")
        ):
            return
        folder = self._folders / f"pvc-{claim['metadata']['uid']}"
        folder.mkdir(parents=True, exist_ok=True)
        self._ask("POST", _VOLUMES, volume(claim, folder))

    def _clear(self, found: dict[str, Any]) -> None:
        ours = found["metadata"].get("annotations", {}).get("pv.kubernetes.io/provisioned-by") == PROVISIONER
        if ours and found["status"].get("phase") == "Released":
            shutil.rmtree(self._folders / found["metadata"]["name"], ignore_errors=True)
            self._ask("DELETE", f"{_VOLUMES}/{found['metadata']['name']}")

    def _follow(self, path: str, act: Callable[[dict[str, Any]], None]) -> None:
        """Handle every existing and new object, and start over after an outage of the API server."""
        while True:
            try:
                listed = self._ask("GET", path)
                changes = self._watch(f"{path}?watch=1&resourceVersion={listed['metadata']['resourceVersion']}")
                for item in itertools.chain(listed["items"], changes):
                    act(item)
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                _log.warning("%s: %s", path, error)
            time.sleep(_AGAIN_SECONDS)

    def _watch(self, path: str) -> Iterator[dict[str, Any]]:
        connection = self._connect(timeout=None)
        try:
            connection.request("GET", path)
            for line in connection.getresponse():
                change = json.loads(line)
                if change["type"] in ("ADDED", "MODIFIED"):
                    yield change["object"]
                elif change["type"] == "ERROR":
                    return
        finally:
            connection.close()

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        connection = self._connect(timeout=30)
        try:
            connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer: dict[str, Any] = json.load(response)
            # If the object already exists or no longer exists, we did that a moment ago.
            if response.status >= 400 and response.status not in (404, 409):
                _log.warning("%s %s: %s", method, path, answer.get("message", response.reason))
            return answer
        finally:
            connection.close()

    def _connect(self, timeout: float | None) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(NODE_IP, 6443, context=self._trust, timeout=timeout)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    Provisioner(Place.from_environment()).run()
