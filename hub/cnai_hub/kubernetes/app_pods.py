"""App pods: what an app's server starts on Kubernetes, fixed by its name and its release, never by options.

An app pod has neither its author's home nor a service account's token. It fetches its release into an empty home
(`cnai_hub.apps.server.fetch`) and serves it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cnai import environment, paths, podspec, programs
from cnai.errors import HubError
from cnai.labels import APP, ROLE
from cnai.podspec import HOME
from cnai_hub.apps.releases import Store, read_release, slug_of

if TYPE_CHECKING:
    from cnai.foreign import Manifest, Traits

HOME_SIZE = "2Gi"
TEMPORARY_SIZE = "1Gi"
SHARED_MEMORY_SIZE = "256Mi"


@dataclass(frozen=True, slots=True, kw_only=True)
class AppPod:
    """What is an app's own about its pod; its limits are those of `flavor` in the catalog ("": the default one).

    `image` is what is pulled, `image_name` its name in the catalog when it was published.
    """

    image: str
    image_name: str
    flavor: str
    command: tuple[str, ...] = ("python", "-m", programs.APP_POD)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, str]:
        """Return the labels that decide which network policies hold for the pod."""
        return {ROLE: APP}

    def traits(self) -> Traits:
        """Return the traits of KubeSpawner that make a pod this app's; each replaces what notebook servers have."""
        volume, mount = podspec.shared_memory(SHARED_MEMORY_SIZE)
        return {
            "image": self.image,
            "cmd": list(self.command),
            "args": [],
            "default_url": "/",
            "notebook_dir": "",
            "working_dir": HOME,
            "service_account": None,
            "automount_service_account_token": False,
            "storage_pvc_ensure": False,
            "volumes": [
                _empty("home", HOME_SIZE),
                _empty("tmp", TEMPORARY_SIZE),
                volume,
            ],
            "volume_mounts": [
                {"name": "home", "mountPath": HOME},
                {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
                mount,
            ],
            "init_containers": [],
            "extra_containers": [],
            "lifecycle_hooks": {},
            "privileged": False,
            "allow_privilege_escalation": False,
            "pod_security_context": podspec.security(),
            "container_security_context": {**podspec.container_security(), "readOnlyRootFilesystem": True},
            # The addresses of the author's schedulers are nothing for it; what ends says why once.
            "extra_pod_config": {"enableServiceLinks": False, "restartPolicy": "Never"},
            # What an app says last when it ends by itself is the reason.
            "extra_container_config": {"terminationMessagePolicy": "FallbackToLogsOnError"},
        }


def app_pod(server_name: str, owner: str) -> AppPod | None:
    """Return the pod of an app's current release, None for a server that is no published app."""
    slug = slug_of(server_name)
    store = Store(paths.home() / "apps")
    app = store.get(owner, slug) if slug else None
    release = read_release(store.folder(owner, app.slug), app.current) if app else None
    if app is None or release is None:
        return None
    if not release.reference:
        raise HubError(f"app {app.slug!r} was published without a container image; publish it again")
    return AppPod(
        image=release.reference,
        image_name=release.image,
        flavor=release.flavor,
        environment={
            "HOME": HOME,
            environment.HOME.name: f"{HOME}/cnai",
            environment.BACKEND.name: "local",  # an app trains in its own pod if at all: it may not ask for others
            environment.IMAGE.name: release.image,
            environment.IMAGE_REFERENCE.name: release.reference,
            "JUPYTERHUB_ACTIVITY_INTERVAL": "60",
        },
    )


def _empty(name: str, size: str) -> Manifest:
    return {"name": name, "emptyDir": {"sizeLimit": size}}
