"""What an administrator gives to servers through the chart: each setting counts, or one line says what to set instead.

The chart sets traits of KubeSpawner from its values, and administrators set more by `hub.config` and `hub.extraConfig`.
A server's start sets traits again, from the catalog, so a setting that is neither added here nor refused would be lost
without a word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from traitlets.config import Config, LazyConfigValue

from cnai import environment as variables
from cnai.errors import UsageError
from cnai.labels import GPU_PRODUCT
from cnai.podspec import HOME, Extras

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cnai.foreign import Manifest, Traits

# The most specific class last: its values win.
_CLASSES = ("Spawner", "KubeSpawner", "CatalogKubeSpawner")

_CATALOG = "list images and flavors in custom.cnai.catalog"
_LIMITS = "flavors in custom.cnai.catalog have the limits; cpu_share and memory_share say what servers request"
_HOMES = "custom.cnai.home describes the homes"
_SECURITY = "servers run as the restricted Pod Security Standard requires"
_IN_IMAGE = "add programs to an image of the catalog"


@dataclass(frozen=True, slots=True)
class _Closed:
    """A setting that is not for administrators: its key in the values, what to do instead, values that set nothing."""

    key: str
    instead: str
    nothing: tuple[object, ...] = ()


_CLOSED = {
    "profile_list": _Closed("singleuser.profileList", _CATALOG),
    "image": _Closed("singleuser.image.name", _CATALOG),
    "cmd": _Closed("singleuser.cmd", "images of the catalog start as cnai's own do", ("jupyterhub-singleuser",)),
    "mem_limit": _Closed("singleuser.memory.limit", _LIMITS),
    "mem_guarantee": _Closed("singleuser.memory.guarantee", _LIMITS, ("1G",)),
    "cpu_limit": _Closed("singleuser.cpu.limit", _LIMITS),
    "cpu_guarantee": _Closed("singleuser.cpu.guarantee", _LIMITS),
    "extra_resource_limits": _Closed("singleuser.extraResource.limits", _LIMITS),
    "extra_resource_guarantees": _Closed("singleuser.extraResource.guarantees", _LIMITS),
    "storage_pvc_ensure": _Closed("singleuser.storage.type", f"set it to none; {_HOMES}", (False,)),
    "pvc_name_template": _Closed("singleuser.storage.dynamic.pvcNameTemplate", _HOMES),
    "storage_class": _Closed("singleuser.storage.dynamic.storageClass", _HOMES),
    "storage_access_modes": _Closed("singleuser.storage.dynamic.storageAccessModes", _HOMES),
    "storage_capacity": _Closed("singleuser.storage.capacity", _HOMES),
    "delete_pvc": _Closed("", "delete a person's namespace to delete their home", (False,)),
    "init_containers": _Closed("singleuser.initContainers, or cloudMetadata.blockWithIptables,", _IN_IMAGE),
    "extra_containers": _Closed("singleuser.extraContainers", _IN_IMAGE),
    "uid": _Closed("singleuser.uid", _SECURITY, (1000,)),
    "gid": _Closed("", _SECURITY, (100,)),
    "fs_gid": _Closed("singleuser.fsGid", _SECURITY, (100,)),
    "privileged": _Closed("", _SECURITY, (False,)),
    "allow_privilege_escalation": _Closed("singleuser.allowPrivilegeEscalation", _SECURITY, (False,)),
    "pod_security_context": _Closed("", _SECURITY),
    "container_security_context": _Closed("", _SECURITY),
    "service_account": _Closed("singleuser.serviceAccountName", "notebooks have an account of their own"),
    "automount_service_account_token": _Closed("", "notebooks have a token, apps have none"),
    "events_enabled": _Closed("singleuser.events", "set it to true; people read why a start waits", (True,)),
    "enable_user_namespaces": _Closed("", "each person has a namespace", (True,)),
    "user_namespace_template": _Closed("", "the tenants of cnai have namespaces of fixed names"),
    "options_form": _Closed("", _CATALOG),
    "options_from_form": _Closed("", _CATALOG),
    "apply_user_options": _Closed("", _CATALOG),
    "notebook_dir": _Closed("", f"servers show the home, {HOME}"),
    "working_dir": _Closed("", f"servers show the home, {HOME}"),
}
_CHARTS_IMAGE = re.compile(r"(.*/)?k8s-singleuser-sample(:.*)?")

_OWN_VARIABLES = (
    variables.HUB_URL,
    variables.BACKEND,
    variables.NAMESPACE,
    variables.CATALOG,
    variables.IMAGE,
    variables.IMAGE_REFERENCE,
    variables.FLAVOR,
    variables.HOME_CLAIM,
    variables.EXTRAS,
)
_RESERVED = ("HOME", "NVIDIA_VISIBLE_DEVICES", *(each.name for each in _OWN_VARIABLES))
_OWN_VOLUMES = {"home", "shm", "tmp"}
_OWN_FOLDERS = {HOME, "/dev/shm", "/tmp"}  # noqa: S108 - paths in pods

# Values of the chart that are no traits: they would do nothing, or break servers.
_CLOSED_VALUES = {
    "singleuser.networkPolicy.enabled": "servers run outside the chart's namespace; custom.cnai.cluster.reachable and"
    " .private say what they may reach",
    "cull.removeNamedServers": "it would delete apps, and who may open them",
    "cull.users": "it would delete people who only open apps, and what was shared with them",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The settings that are added to those of the catalog."""

    tolerations: list[Manifest] = field(default_factory=list)
    node_selector: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    volumes: list[Manifest] = field(default_factory=list)
    volume_mounts: list[Manifest] = field(default_factory=list)
    pod: Manifest = field(default_factory=dict)
    pod_of_runs: Manifest = field(default_factory=dict)
    container: Manifest = field(default_factory=dict)
    lifecycle_hooks: Manifest = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)
    default_url: str = ""

    def extras(self) -> Extras:
        """Return the part that the nodes of a person's runs have in common with their notebook."""
        return Extras(
            tolerations=tuple(self.tolerations),
            node_selector=self.node_selector,
            pod={**self.pod, **self.pod_of_runs},
            volumes=tuple(self.volumes),
            volume_mounts=tuple(self.volume_mounts),
        )


NOTHING = Given()


def traits(c: Any) -> Traits:
    """Return what a configuration has for the traits of our spawner, as traitlets puts it together."""
    found = Config()
    for each in _CLASSES:
        found.merge(c[each])
    return {name: _value(value) for name, value in found.items()}


def _value(value: Any) -> Any:
    if isinstance(value, LazyConfigValue):  # the configuration only appended to the default, or updated it
        return value.get_value({} if "update" in value.to_dict() else [])
    return value


def settings(c: Any) -> Given:
    """Return what a configuration gives to servers; UsageError for a setting that is closed."""
    found = traits(c)
    for mistake in _mistakes(found):
        raise UsageError(mistake)
    return Given(
        tolerations=found.get("tolerations") or [],
        node_selector=found.get("node_selector") or {},
        labels=found.get("extra_labels") or {},
        annotations=found.get("extra_annotations") or {},
        volumes=_list(found.get("volumes")),
        volume_mounts=_list(found.get("volume_mounts")),
        pod=found.get("extra_pod_config") or {},
        pod_of_runs=_pod_of_runs(found),
        container=found.get("extra_container_config") or {},
        lifecycle_hooks=found.get("lifecycle_hooks") or {},
        arguments=found.get("args") or [],
        default_url=found.get("default_url") or "",
    )


def _pod_of_runs(found: Traits) -> Manifest:
    """Return what KubeSpawner writes into a server's pod by itself, for the pods of runs."""
    secrets = [{"name": each} if isinstance(each, str) else each for each in found.get("image_pull_secrets") or []]
    terms = found.get("node_affinity_required")
    affinity = {
        "requiredDuringSchedulingIgnoredDuringExecution": terms and {"nodeSelectorTerms": terms},
        "preferredDuringSchedulingIgnoredDuringExecution": found.get("node_affinity_preferred"),
    }
    nodes = {key: value for key, value in affinity.items() if value}
    fields = {
        "imagePullSecrets": secrets,
        "priorityClassName": found.get("priority_class_name"),
        "schedulerName": found.get("scheduler_name"),
        "affinity": {"nodeAffinity": nodes} if nodes else {},
    }
    return {key: value for key, value in fields.items() if value}


def check(c: Any, values: Callable[[str], Any]) -> None:
    """Raise UsageError for the first setting, in configuration or values, that is closed."""
    settings(c)
    for key, instead in _CLOSED_VALUES.items():
        if values(key):
            raise UsageError(f"{key} is not for cnai: {instead}")


def keep(c: Any, **defaults: Any) -> None:
    """Set traits that the administrator has not set, for whatever class of spawner."""
    c.KubeSpawner.update({name: value for name, value in defaults.items() if name not in traits(c)})


def _mistakes(found: Traits) -> Iterator[str]:
    for name, closed in _CLOSED.items():
        value = found.get(name)
        if value is None or value in ("", [], {}) or value in closed.nothing:
            continue
        if name != "image" or not _CHARTS_IMAGE.fullmatch(str(value)):
            yield f"{closed.key or f'KubeSpawner.{name}'} can't be {_shown(value)}: {closed.instead}"
    if GPU_PRODUCT in (found.get("node_selector") or {}):
        yield f"singleuser.nodeSelector can't have {GPU_PRODUCT}: set gpu_product of the flavors in custom.cnai.catalog"
    for name in found.get("environment") or {}:
        if name in _RESERVED:
            yield f"singleuser.extraEnv can't have {name}: cnai sets it for each server"
    yield from _mistaken_volumes(found)


def _mistaken_volumes(found: Traits) -> Iterator[str]:
    for volume in _list(found.get("volumes")):
        if volume["name"] in _OWN_VOLUMES:
            yield f"singleuser.storage can't have a volume {volume['name']!r}: {_HOMES}; choose another name"
        if volume["name"] == "files" and "secret" in volume:
            yield "singleuser.extraFiles can't be used: its secret is in the hub's namespace; add files to an image"
    for mount in _list(found.get("volume_mounts")):
        if mount["mountPath"].rstrip("/") in _OWN_FOLDERS:
            yield f"singleuser.storage.extraVolumeMounts can't have {mount['mountPath']}: cnai mounts it"


def _shown(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _list(given: Any) -> list[Manifest]:
    """Return volumes or mounts, which the chart sets as a map since release 4."""
    return [given[key] for key in sorted(given)] if isinstance(given, dict) else list(given or [])
