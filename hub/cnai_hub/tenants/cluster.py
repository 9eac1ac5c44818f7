"""What the administrator says about a cluster."""

from __future__ import annotations

from dataclasses import dataclass

from cnai.labels import OPERATOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where the hub lives, how much a tenant may hold at once, and whom its pods may reach.

    `machines` counts machines of the largest flavor that a tenant may start: its notebook server and the nodes of its
    runs. Addresses are CIDRs: `api_servers` as pods see them once a Service's address is resolved to its endpoints,
    `reachable` what lies in a private network and is needed nevertheless (an object store), `private` what looks
    public and is not. `registries` are prefixes that every image must start with; none: images are not looked at.
    `hub_image` is what the operator's pod runs, `releases_gib` the room for published apps, of `storage_class` or the
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
