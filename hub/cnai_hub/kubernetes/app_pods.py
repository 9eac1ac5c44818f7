"""App pods: the pod of an app's server on Kubernetes, determined by name and release, never by options.

An app pod has neither its author's home nor the token of a service account. It fetches its release into an empty home
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
    """The settings of a pod that differ between apps; `flavor` sets its limits ("" for the default flavor).

    `image` is the reference to pull, `image_name` the image's name in the catalog when the app was published.
    """

    image: str
    image_name: str
    flavor: str
    command: tuple[str, ...] = ("python", "-m", programs.APP_POD)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, str]:
        """Return the labels that decide which network policies apply to the pod."""
        return {ROLE: APP}

    def traits(self) -> Traits:
        """Return the traits of KubeSpawner for this app's pod; each replaces that of notebook servers."""
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
            # Service links would reveal the addresses of the author's schedulers; a restart would hide why a pod ended.
            "extra_pod_config": {"enableServiceLinks": False, "restartPolicy": "Never"},
            # When an app exits by itself, the last lines of its log are the reason.
            "extra_container_config": {"terminationMessagePolicy": "FallbackToLogsOnError"},
        }


def app_pod(server_name: str, owner: str) -> AppPod | None:
    """Return the pod of an app's current release, None if the server is not a published app."""
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
            environment.BACKEND.name: "local",  # an app may not create pods, so it can only train in its own
            environment.IMAGE.name: release.image,
            environment.IMAGE_REFERENCE.name: release.reference,
            "JUPYTERHUB_ACTIVITY_INTERVAL": "60",
        },
    )


def _empty(name: str, size: str) -> Manifest:
    return {"name": name, "emptyDir": {"sizeLimit": size}}
