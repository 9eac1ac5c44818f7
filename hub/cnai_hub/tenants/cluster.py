"""The administrator's settings for a cluster."""

from __future__ import annotations

from dataclasses import dataclass

from cnai.labels import OPERATOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The hub's namespace and accounts, the limits of a tenant, and the addresses that its pods may reach.

    `machines` counts machines of the largest flavor that a tenant may start: its notebook server and the nodes of its
    runs. Addresses are CIDRs: `api_servers` are those of the Service's endpoints, not of the Service; `reachable` are
    private addresses that pods need (such as an object store's); `private` are private addresses in public ranges.
    Every image must start with one of the prefixes in `registries`; if there are none, images are not checked.
    The operator's pod runs `hub_image`. Published apps get `releases_gib` of storage, of class `storage_class` or the
    cluster's default.
    """

    hub_namespace: str = "cnai"
    hub_account: str = "hub"
    operator_account: str = OPERATOR
    machines: int = 5
    dask_clusters: int = 3
    pods: int = 64
    claims: int = 10
    storage_gib: int = 500
    api_servers: tuple[str, ...] = ()
    api_port: int = 6443
    reachable: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()
    hub_image: str = ""
    releases_gib: int = 20
    storage_class: str = ""
