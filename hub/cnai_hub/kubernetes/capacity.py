"""Capacity: the free resources of a cluster's nodes, and whether a flavor fits.

Pure functions of nodes and pods as the API server lists them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnai.labels import GPU, GPU_PRODUCT
from cnai.quantities import product, quantity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnai.catalog import Catalog, Flavor
    from cnai.foreign import Manifest
    from cnai_hub.kubernetes.settings import Settings


@dataclass(frozen=True, slots=True)
class Node:
    """A node that accepts pods; `gpus` counts all of its GPUs, `free_…` are the resources that no pod has requested."""

    name: str
    gpu_product: str
    gpus: int
    free_gpus: int
    free_cpu: float
    free_memory: float

    def takes(self, flavor: Flavor, settings: Settings) -> bool:
        """Tell whether a server of this flavor fits on this node now."""
        return (
            self._is_of(flavor)
            and flavor.gpus <= self.free_gpus
            and flavor.cpu * settings.cpu_share <= self.free_cpu
            and flavor.memory_gib * 2**30 * settings.memory_share <= self.free_memory
        )

    def _is_of(self, flavor: Flavor) -> bool:
        return not flavor.gpu_product or self.gpu_product == flavor.gpu_product


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """CPUs, bytes of memory and GPUs that a node has, or that a pod reserves."""

    cpu: float = 0
    memory: float = 0
    gpus: float = 0

    @classmethod
    def of(cls, quantities: Manifest) -> Resources:
        """Read quantities by their names in Kubernetes."""
        cpu, memory, gpus = (quantity(quantities.get(key, 0)) for key in ("cpu", "memory", GPU))
        return cls(cpu=cpu, memory=memory, gpus=gpus)

    def __add__(self, other: Resources) -> Resources:
        return Resources(cpu=self.cpu + other.cpu, memory=self.memory + other.memory, gpus=self.gpus + other.gpus)

    def at_least(self, other: Resources) -> Resources:
        """Return the maximum of each resource."""
        return Resources(
            cpu=max(self.cpu, other.cpu), memory=max(self.memory, other.memory), gpus=max(self.gpus, other.gpus)
        )


def free(nodes: Iterable[Manifest], pods: Iterable[Manifest]) -> tuple[Node, ...]:
    """Return the free resources of each node that is ready and accepts our pods."""
    held: defaultdict[str, Resources] = defaultdict(Resources)
    for pod in pods:
        if (pod.get("status") or {}).get("phase") not in {"Succeeded", "Failed"}:
            held[(pod.get("spec") or {}).get("nodeName") or ""] += _reserved(pod)
    return tuple(_node(node, held[node["metadata"]["name"]]) for node in nodes if _open(node))


def note(flavor: Flavor, nodes: Iterable[Node]) -> str:
    """Say how many GPUs of a flavor's kind are free; empty for flavors without GPUs."""
    if not flavor.gpus:
        return ""
    kind = [node for node in nodes if node.gpus and (not flavor.gpu_product or node.gpu_product == flavor.gpu_product)]
    if not kind:
        return "no node has such GPUs now"
    return f"{sum(node.free_gpus for node in kind)} of {sum(node.gpus for node in kind)} GPUs free now"


def shortage(flavor: Flavor, nodes: Iterable[Node]) -> str:
    """Say in one sentence why no node has enough GPUs for a flavor; empty if GPUs are not the problem."""
    if not flavor.gpus:
        return ""
    kind = [node for node in nodes if node.gpus and (not flavor.gpu_product or node.gpu_product == flavor.gpu_product)]
    name = product(flavor.gpu_product)
    what = f"{name} GPU" if name else "GPU"
    best, together = max((n.free_gpus for n in kind), default=0), sum(n.free_gpus for n in kind)
    if best >= flavor.gpus:
        return ""
    if not kind:
        return f"no node has {name or 'a'} GPU{'s' if name else ''}"
    count = f"no node has {flavor.gpus} free {what}{'s' if flavor.gpus > 1 else ''}"
    if not together:
        return f"{count}; none is free"
    are = "is" if together == 1 else "are"
    spread = f", at most {best} of them on one node" if best < together else ""
    return f"{count}; {together} {are} free{spread}"


def largest(shelf: Catalog, instead_of: Flavor, nodes: Iterable[Node], settings: Settings) -> Flavor | None:
    """Return the largest smaller flavor that fits on a node now, preferably with the same kind of GPUs."""
    free_nodes = tuple(nodes)
    smaller = [
        flavor
        for flavor in shelf.flavors
        if flavor != instead_of
        and (flavor.gpus, flavor.memory_gib) <= (instead_of.gpus, instead_of.memory_gib)
        and any(node.takes(flavor, settings) for node in free_nodes)
    ]
    return max(
        smaller,
        key=lambda each: (
            bool(each.gpus) and each.gpu_product == instead_of.gpu_product,
            each.gpus,
            each.memory_gib,
            each.cpu,
        ),
        default=None,
    )


def _open(node: Manifest) -> bool:
    spec, status = node.get("spec") or {}, node.get("status") or {}
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions") or ())
    kept = [taint for taint in spec.get("taints") or () if taint.get("effect") != "PreferNoSchedule"]
    return ready and not spec.get("unschedulable") and all(taint.get("key") == GPU for taint in kept)


def _node(node: Manifest, held: Resources) -> Node:
    has = Resources.of(node["status"].get("allocatable") or {})
    return Node(
        name=node["metadata"]["name"],
        gpu_product=(node["metadata"].get("labels") or {}).get(GPU_PRODUCT, ""),
        gpus=int(has.gpus),
        free_gpus=max(0, int(has.gpus - held.gpus)),
        free_cpu=max(0.0, has.cpu - held.cpu),
        free_memory=max(0.0, has.memory - held.memory),
    )


def _reserved(pod: Manifest) -> Resources:
    """Return the resources that a pod reserves: the sum of its containers, or those of a larger init container."""
    spec = pod.get("spec") or {}
    total = sum((_requests(container) for container in spec.get("containers") or ()), Resources())
    for container in spec.get("initContainers") or ():
        total = total.at_least(_requests(container))
    return total


def _requests(container: Manifest) -> Resources:
    resources = container.get("resources") or {}
    return Resources.of({**(resources.get("limits") or {}), **(resources.get("requests") or {})})
