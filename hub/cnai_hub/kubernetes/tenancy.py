"""A user's namespace: before each start of their servers, the hub creates or updates it with its own rights."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from cnai_hub import tenants
from cnai_hub.kubernetes.api import Refused, path_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from cnai.foreign import Manifest
    from cnai_hub.kubernetes.api import Api
    from cnai_hub.kubernetes.settings import Settings

_RIGHTS_SECONDS = 20.0
"""How long the API server may take to apply a new role binding."""

_FORBIDDEN, _BAD_REQUEST = 403, 400


async def ensure(api: Api, user: str, groups: Collection[str], settings: Settings) -> None:
    """Create or update the namespace of a user, for their groups and the settings.

    If a namespace of that name belongs to somebody else, raise Refused and create nothing.
    """
    namespace, binding, *inside = tenants.manifests(user, groups, settings.catalog, settings.cluster)
    await _claim(api, namespace, user)
    await api.apply(binding)
    await asyncio.gather(*(_apply(api, manifest) for manifest in inside))


def why_without_volume(claim: Manifest | None) -> str:
    """Return why a home folder's claim can't get a volume; empty if it has one or may still get one."""
    if claim is None:
        return "the home folder's claim no longer exists; start the server again"
    spec = claim.get("spec") or {}
    # An administrator has set up a claim that names a volume.
    if (claim.get("status") or {}).get("phase") == "Bound" or spec.get("storageClassName") or spec.get("volumeName"):
        return ""
    return (
        "the cluster has no default storage class for home folders;"
        " ask your administrator to set custom.cnai.home.storage_class"
    )


async def _claim(api: Api, namespace: Manifest, user: str) -> None:
    found = await api.get(path_of(namespace))
    if found is None:
        if await api.create(namespace):
            return
        found = await api.get(path_of(namespace)) or {"metadata": {"name": namespace["metadata"]["name"]}}
    if why := tenants.refusal(found, user):
        raise Refused(why, _BAD_REQUEST)
    if found["metadata"].get("deletionTimestamp"):
        raise Refused(f"namespace {found['metadata']['name']!r} is being deleted; try again in a minute", _BAD_REQUEST)


async def _apply(api: Api, manifest: Manifest) -> None:
    deadline = time.monotonic() + _RIGHTS_SECONDS
    while True:
        try:
            return await api.apply(manifest)
        except Refused as refused:
            # The hub's own role was bound in this namespace only a moment ago.
            if refused.status != _FORBIDDEN or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


def groups_of(user: Any) -> list[str]:
    """Return the names of the groups that a user of JupyterHub is in."""
    return sorted(group.name for group in user.groups)
