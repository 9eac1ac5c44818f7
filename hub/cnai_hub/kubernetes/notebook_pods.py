"""Pods of notebook servers: the traits of KubeSpawner for a profile.

Pure functions; tests compare their whole results. The traits of apps (`cnai_hub.kubernetes.app_pods`) replace them.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cnai import environment as variables
from cnai import podspec
from cnai.labels import FLAVOR, HOME_CLAIM, IMAGE, MAX_HOURS, NOTEBOOK
from cnai.podspec import HOME
from cnai.programs import NOTEBOOK_POD
from cnai_hub.kubernetes.given import NOTHING

if TYPE_CHECKING:
    from cnai.catalog import Catalog, Flavor
    from cnai.foreign import Manifest, Traits
    from cnai_hub.kubernetes.given import Given
    from cnai_hub.kubernetes.settings import Settings
    from cnai_hub.profiles import Profile

CLAIM = "home"


def hardware(flavor: Flavor, settings: Settings, given: Given = NOTHING) -> Traits:
    """Return the traits that give the pod of a notebook or app its flavor's resources, and where it may run."""
    memory = int(flavor.memory_gib * 2**30)
    return {
        "cpu_limit": flavor.cpu,
        "cpu_guarantee": max(0.01, round(flavor.cpu * settings.cpu_share, 3)),
        "mem_limit": memory,
        "mem_guarantee": int(memory * settings.memory_share),
        "extra_resource_limits": podspec.gpu_limits(flavor),
        "node_selector": {**given.node_selector, **podspec.node_selector(flavor)},
        "tolerations": [*given.tolerations, *podspec.tolerations(flavor)],
        "extra_annotations": {
            **given.annotations,
            **({MAX_HOURS: f"{flavor.max_hours:g}"} if flavor.max_hours else {}),
        },
    }


def notebook(profile: Profile, settings: Settings, given: Given = NOTHING) -> Traits:
    """Return the traits of a notebook server's pod."""
    volume, mount = podspec.shared_memory(f"{math.ceil(profile.flavor.memory_gib * 512)}Mi")
    return {
        **hardware(profile.flavor, settings, given),
        "image": profile.image.reference,
        "cmd": ["python", "-m", NOTEBOOK_POD],
        "args": given.arguments,
        "default_url": given.default_url or "/lab/tree/notebooks",
        "notebook_dir": HOME,
        "working_dir": HOME,
        # Only notebooks have a token; pods of runs and apps have none.
        "service_account": NOTEBOOK,
        "automount_service_account_token": True,
        "storage_pvc_ensure": True,
        "pvc_name_template": HOME_CLAIM,
        "storage_capacity": f"{settings.home.storage_gib * 1024:.0f}Mi",
        "storage_class": settings.home.storage_class or None,
        "storage_access_modes": [settings.home.access_mode],
        "volumes": [
            {"name": "home", "persistentVolumeClaim": {"claimName": CLAIM}},
            volume,
            *given.volumes,
        ],
        "volume_mounts": [{"name": "home", "mountPath": HOME}, mount, *given.volume_mounts],
        "init_containers": [],
        "extra_containers": [],
        "lifecycle_hooks": given.lifecycle_hooks,
        "extra_labels": {**given.labels, FLAVOR: profile.flavor.name, IMAGE: profile.image.name},
        "privileged": False,
        "allow_privilege_escalation": False,
        "pod_security_context": podspec.security(),
        "container_security_context": podspec.container_security(),
        # Otherwise each Dask scheduler's Service adds seven environment variables.
        "extra_pod_config": {"enableServiceLinks": False, **given.pod},
        "extra_container_config": {"terminationMessagePolicy": "FallbackToLogsOnError", **given.container},
    }


def is_overdue(pod: Manifest, now: datetime) -> bool:
    """Tell whether a pod has run for its flavor's max_hours."""
    hours = (pod["metadata"].get("annotations") or {}).get(MAX_HOURS)
    started = (pod.get("status") or {}).get("startTime")
    if not hours or not started:
        return False
    return now - datetime.fromisoformat(started) > timedelta(hours=float(hours))


def environment(profile: Profile, shelf: Catalog, namespace: str) -> dict[str, str]:
    """Return the environment variables of a notebook; `shelf` is the part of the catalog that its user may start."""
    return {
        "HOME": HOME,
        variables.BACKEND.name: "kubernetes",
        variables.NAMESPACE.name: namespace,
        variables.CATALOG.name: shelf.to_json(),
        variables.IMAGE.name: profile.image.name,
        variables.IMAGE_REFERENCE.name: profile.image.reference,
        variables.FLAVOR.name: profile.flavor.name,
        variables.HOME_CLAIM.name: HOME_CLAIM,
        # Otherwise every rank uses as many threads as the node has CPUs.
        "OMP_NUM_THREADS": str(max(1, int(profile.flavor.cpu))),
    }
