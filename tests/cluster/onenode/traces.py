"""Changes outside the cluster's folder that no setting avoids: recorded at the first start, and undone at removal."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from onenode.network import SWITCHES

if TYPE_CHECKING:
    from onenode.place import Place

_LINKS = Path("/var/log/containers")
# buildah's record of the layers in a registry and their compression. Without it, a push compresses PyTorch's again.
_LAYERS = Path("/var/lib/containers/cache/blob-info-cache-v1.boltdb")
# Files that buildah and kubelet create; they are deleted if they did not exist before.
_FILES = (
    Path("/etc/cni/net.d/cni.lock"),
    _LAYERS,
    Path("/var/lib/kubelet/device-plugins/kubelet.sock"),
)
# Folders that are deleted if they are empty.
_FOLDERS = (
    *(parent for file in _FILES for parent in (file.parent, file.parent.parent)),
    Path("/run/containers/networks"),
    Path("/run/containers"),
    Path("/var/lib/cni/results"),
    Path("/var/lib/cni"),
    Path("/run/containerd/s"),
    Path("/run/containerd"),
    _LINKS,
)


def remember(place: Place) -> None:
    """Record the state before the first start."""
    path = _memory(place)
    if not path.exists():
        switches = {str(switch): switch.read_text().strip() for switch in SWITCHES if switch.exists()}
        absent = [str(file) for file in _FILES if not file.exists()]
        path.write_text(json.dumps({"switches": switches, "absent": absent}))
        if str(_LAYERS) in absent and (kept := place.cache / _LAYERS.name).exists():
            _LAYERS.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(kept, _LAYERS)


def restore(place: Place) -> None:
    """Restore the recorded state."""
    for link in _LINKS.glob("*.log"):
        if link.is_symlink() and Path(os.readlink(link)).is_relative_to(place.state):
            link.unlink()
    if not _memory(place).exists():
        return
    before = json.loads(_memory(place).read_text())
    for switch, value in before["switches"].items():
        Path(switch).write_text(value)
    if str(_LAYERS) in before["absent"] and _LAYERS.exists():
        shutil.copy(_LAYERS, place.cache)
    for file in before["absent"]:
        Path(file).unlink(missing_ok=True)
    for folder in _FOLDERS:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _memory(place: Place) -> Path:
    return place.state / "before.json"
