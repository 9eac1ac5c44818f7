"""cnai's own images for tests on a cluster: built from the current code, pushed, and named by digest."""

from __future__ import annotations

import os
import secrets
import shutil
from typing import TYPE_CHECKING

from onenode.images import digest, forget_others
from onenode.place import REGISTRY, REGISTRY_ADDRESS
from realcluster import alone, pod

from images import chain, make, sources
from images.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from realcluster import Cluster

GENERATIONS = 2
PULL_PATIENCE = "900s"
# Faster than gzip; containerd supports it since 1.5.
COMPRESSION = ("--compression-format=zstd", "--compression-level=1")


class Images:
    """References by name (`images["notebook"]`); an image is built when it is first used.

    A tag is a hash of everything that determines the image's contents, so an image in the registry is never rebuilt.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        if cluster.place is not None:
            self._registry, self._there = f"{REGISTRY}/cnai", f"{REGISTRY_ADDRESS}/cnai"
        else:
            self._registry = self._there = os.environ["CNAI_CLUSTER_REGISTRY"]
        settings = cluster.place.settings() if cluster.place else {}
        engine = Engine("buildah", tuple(sources.secrets(folder)), COMPRESSION, settings)
        self._cluster = cluster
        self.maker = make.Maker(engine, cluster.base)
        self._local = cluster.place is not None
        self._built: dict[str, str] = {}
        self._pulled: set[str] = set()
        with alone("images"):
            make.wheel()

    def __getitem__(self, name: str) -> str:
        reference = self.built(name)
        if name not in self._pulled:
            with alone("pulls"):
                self._pull(reference)
            self._pulled.add(name)
        return reference

    def built(self, name: str) -> str:
        """Return the reference of an image in the registry, which no node may have pulled yet."""
        if name not in self._built:
            with alone("images"):
                self._built[name] = self._make(name)
        return self._built[name]

    def _make(self, name: str) -> str:
        tag = make.content(self.maker.packages_name(name))
        if self._local and (found := digest(f"{self._registry}/{name}:{tag}")):
            return f"{self._registry}/{name}@{found}"
        packages = self.maker.packages([name])
        made = self.maker.finish(name, packages[name], tag)
        reference = self.maker.push(made, self._registry, self._there)
        self.maker.engine.remove(made)  # the registry has it
        self._forget(packages)
        return reference

    def _pull(self, reference: str) -> None:
        """Pull it to a node before a test waits for a pod: on a slow disk, pulling PyTorch exceeds the time limit."""
        puller = pod(f"pull-{secrets.token_hex(4)}", reference, ["true"])
        name = puller["metadata"]["name"]
        self._cluster.create(puller, "default")
        try:
            done = "--for=jsonpath={.status.phase}=Succeeded"
            self._cluster.kubectl("wait", f"pod/{name}", done, "-n", "default", f"--timeout={PULL_PATIENCE}")
        finally:
            self._cluster.kubectl("delete", "pod", name, "-n", "default")
        if self._cluster.place is not None:
            forget_others(self._cluster.place, reference)

    def _forget(self, packages: Mapping[str, str]) -> None:
        """Remove all builds of packages except the last two: those with PyTorch take 6 GB each."""
        for name in packages:
            repository = f"{chain.LOCAL}/{name}"
            old = [tag for tag in self.maker.engine.tags(repository) if tag.startswith("packages-")][GENERATIONS:]
            for tag in {*old} - {packages[name].rpartition(":")[2]}:
                self.maker.engine.remove(f"{repository}:{tag}")


def unavailable(cluster: Cluster) -> str:
    """Return why images can't be built for a cluster, "" if they can."""
    if cluster.place is None and not os.environ.get("CNAI_CLUSTER_REGISTRY"):
        return "no registry: CNAI_CLUSTER_REGISTRY names none that the cluster pulls from"
    return "" if shutil.which("buildah") else "buildah is not installed (Debian: apt-get install buildah)"
