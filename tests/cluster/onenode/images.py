"""Images for the cluster: a Debian base, builds with buildah, and a registry from which containerd really pulls.

`registry.cnai.test/NAME` is the same image in a FROM, for `buildah pull`, and in a pod; pushes use the address.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from onenode.configs import PAUSE
from onenode.place import REGISTRY, REGISTRY_ADDRESS, ClusterError
from onenode.shell import call

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onenode.place import Place

_log = logging.getLogger(__name__)
SUITE = "bookworm"
DEBIAN = f"{REGISTRY}/debian:{SUITE}-slim"
_CERTIFICATES = Path("/etc/ssl/certs")


def build(place: Place, folder: Path, name: str, arguments: Mapping[str, str] | None = None) -> str:
    """Build a folder's Dockerfile as NAME, push it, and return the reference for pods."""
    image = f"{REGISTRY}/{name}"
    options = [f"--build-arg={key}={value}" for key, value in (arguments or {}).items()]
    call("buildah", "bud", "--layers", *options, *host_trust(place), "--tag", image, folder, env=place.settings())
    push(place, image)
    return image


def push(place: Place, image: str) -> None:
    """Push a built image to the registry."""
    # registries.conf redirects only pulls to the registry's address, not pushes.
    there = image.replace(REGISTRY, REGISTRY_ADDRESS, 1)
    call("buildah", "push", "--quiet", image, f"docker://{there}", env=place.settings())


def host_trust(place: Place) -> list[str]:
    """Return options that give a build the host's certificate authorities, without storing them in the image."""
    pip = place.state / "config" / "pip.conf"
    pip.write_text(f"[global]\ncert = {_CERTIFICATES}/ca-certificates.crt\n")
    return [f"--volume={_CERTIFICATES}:{_CERTIFICATES}:ro", f"--volume={pip}:/etc/pip.conf:ro"]


def exists(image: str) -> bool:
    """Tell whether the registry has an image."""
    return digest(image) is not None


def digest(image: str) -> str | None:
    """Return the digest of an image in the registry, nothing if the registry doesn't have it."""
    name, _, tag = image.removeprefix(f"{REGISTRY}/").partition(":")
    kinds = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
    request = urllib.request.Request(
        f"http://{REGISTRY_ADDRESS}/v2/{name}/manifests/{tag}", headers={"Accept": kinds}, method="HEAD"
    )
    try:
        with _opener().open(request, timeout=10) as answer:
            return str(answer.headers["Docker-Content-Digest"])
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise ClusterError(f"the registry answers {error.code} for {image}") from error


def forget_others(place: Place, reference: str) -> None:
    """Remove older images of a repository from the node; the newest image shares most of their layers."""
    control = ("ctr", f"--address={place.containerd}", "--namespace=k8s.io", "images")
    listed = [line.split()[:3] for line in call(*control, "list").splitlines()[1:]]
    repository, _, kept = reference.partition("@")
    gone = {digest for name, _, digest in listed if name.startswith(f"{repository}@") and digest != kept}
    # An image has several names: the reference, and its id.
    if names := [name for name, _, digest in listed if digest in gone]:
        call(*control, "remove", *names)


def answers() -> bool:
    """Tell whether the registry runs."""
    try:
        with _opener().open(f"http://{REGISTRY_ADDRESS}/v2/", timeout=5):
            return True
    except OSError:
        return False


def pause(place: Place) -> None:
    """Push the pause image, whose program holds every pod's namespaces."""
    if not exists(PAUSE):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(place.programs / "pause", Path(folder, "pause"))
            Path(folder, "Dockerfile").write_text(
                'FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n'
            )
            call("buildah", "bud", "--tag", PAUSE, folder, env=place.settings())
        push(place, PAUSE)


def debian(place: Place) -> str:
    """Return a small Debian image for `FROM` in our Dockerfiles; build it from packages unless the registry has it."""
    if not exists(DEBIAN):
        archive = place.cache / f"debian-{SUITE}.tar"
        if not archive.exists():
            _log.info("making %s from packages, about a minute", archive)
            new = archive.with_name(f"new-{archive.name}")
            call("mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates", SUITE, new)
            new.rename(archive)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "Dockerfile").write_text(f'FROM scratch\nADD {archive.name} /\nCMD ["bash"]\n')
            Path(folder, archive.name).hardlink_to(archive) if _same_disk(archive, folder) else shutil.copy(
                archive, folder
            )
            call("buildah", "bud", "--tag", DEBIAN, folder, env=place.settings())
        push(place, DEBIAN)
    return DEBIAN


def _same_disk(archive: Path, folder: str) -> bool:
    return archive.stat().st_dev == Path(folder).stat().st_dev


def _opener() -> urllib.request.OpenerDirector:
    """Return a URL opener that uses no proxy, because the registry is on loopback."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))
