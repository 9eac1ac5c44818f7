"""Checks of the cluster from inside a notebook's pod, with only the rights of its person."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from cnai import environment, paths, programs, quantities
from cnai.backends.kubernetes import access, api, manifests
from cnai.backends.kubernetes.api import Api, Refused
from cnai.catalog import Flavor
from cnai.errors import EngineError
from cnai.faces.doctor import network, rights
from cnai.faces.doctor.report import Check
from cnai.labels import DASK_CLUSTERS, DASK_GROUP, GPU

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

OPERATOR_SECONDS = 30.0
INSTALL = f"ask your administrator to install cnai's part of the cluster: python -m {programs.TENANTS}"
_ROOM = (f"requests.{GPU}", "requests.cpu", "limits.memory", "pods", f"count/{DASK_CLUSTERS}.{DASK_GROUP}")
_POLL_SECONDS = 0.3


def looks() -> Iterable[Callable[[], Check]]:
    """Return the checks; if the API server does not answer, only its own and the network's: others would fail alike."""
    found = Cluster(Api(access.of_pod()), environment.NAMESPACE.get())
    first = found.api_server()
    if first.state != "ok":
        return [lambda: first, network.look]
    of_api = [found.api_rights, found.definitions, found.operator, found.home, found.quota]
    return [lambda: first, *of_api, image, network.look]


def image() -> Check:
    """Check that training knows the notebook's image, which its nodes run."""
    reference = environment.IMAGE_REFERENCE.get()
    if not reference:
        advice = "start the server from the hub's list of images; if you did, tell your administrator"
        return Check.wrong(
            "image", f"this pod doesn't know its image ({environment.IMAGE_REFERENCE} is not set)", advice
        )
    if "@sha256:" not in reference:
        advice = "ask your administrator for a reference by digest in the catalog: a tag may change between two pods"
        return Check.wrong("image", f"{reference} is a tag", advice)
    return Check.ok("image", f"{environment.IMAGE.get()} is {reference}".strip())


class Cluster:
    """Checks that ask the API server about one namespace."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._namespace = api, namespace

    def api_server(self) -> Check:
        """Check that the API server answers this pod."""
        if not self._namespace:
            advice = "start the server from the hub; if you did, tell your administrator"
            return Check.wrong(
                "API server", f"this pod doesn't know its namespace ({environment.NAMESPACE} is not set)", advice
            )
        try:
            return Check.ok("API server", f"{self._api.ask('version')['gitVersion']} answers")
        except Refused as refused:
            if refused.status == 401:
                found = "no longer accepts this pod's token"
                return Check.wrong("API server", found, "stop the server and start it again")
            return Check.wrong("API server", str(refused), INSTALL)
        except EngineError as error:
            return Check.wrong("API server", str(error), "tell your administrator; runs continue without it")

    def api_rights(self) -> Check:
        """Check that this account has exactly the rights that training needs."""
        return rights.look(self._api, self._namespace)

    def definitions(self) -> Check:
        """Check that the API server knows Dask clusters."""
        try:
            kinds = {each["kind"] for each in self._api.ask(api.DASK)["resources"]}
        except Refused as refused:
            if refused.status != 404:
                raise
            kinds = set()
        if missing := {"DaskCluster", "DaskWorkerGroup"} - kinds:
            found = f"the API server doesn't know {' and '.join(sorted(missing))}"
            return Check.wrong("resource definitions", found, INSTALL)
        return Check.ok("resource definitions", "Dask clusters are known")

    def operator(self) -> Check:
        """Check that the operator reacts to a Dask cluster, which can't have pods because its name is too long."""
        name = f"doctor-{secrets.token_hex(26)}"
        home = str(paths.home().parent)
        # Without an idle timeout the operator asks no scheduler, so it can release the cluster immediately.
        place = manifests.Place(namespace=self._namespace, claim=_claim(), home=home, idle_seconds=0)
        reference = environment.IMAGE_REFERENCE.get() or "none"
        tiny = Flavor(name="none", title="", cpu=0.1, memory_gib=0.1)
        try:
            self._api.create(manifests.engine(name, place, tiny, reference, 0))
        except Refused as refused:
            if refused.status == 404:
                return Check.unknown("operator", "can't be tried without resource definitions", INSTALL)
            return Check.unknown("operator", f"can't be tried: {refused}")
        try:
            seconds = self._noticed(name)
        finally:
            self._api.delete(name)
        if seconds is None:
            found = f"did not react to a Dask cluster within {OPERATOR_SECONDS:.0f} s"
            return Check.wrong("operator", found, f"{INSTALL}, which starts it")
        return Check.ok("operator", f"reacted to a Dask cluster within {seconds:.1f} s")

    def home(self) -> Check:
        """Check that the home's claim has a volume that all nodes of a run can share."""
        name = _claim()
        try:
            claim = self._api.ask(self._api.core(f"persistentvolumeclaims/{name}"))
        except Refused as refused:
            if refused.status != 404:
                raise
            advice = "stop the server and start it again: the hub creates the claim"
            return Check.wrong("home", f"claim {name!r} doesn't exist", advice)
        if claim["status"].get("phase") != "Bound":
            why = "it names no storage class, and no class is the default" if _classless(claim) else "no volume fits"
            advice = "ask your administrator for a default storage class that supports ReadWriteMany"
            return Check.wrong("home", f"claim {name!r} has no volume: {why}", advice)
        modes = claim["status"].get("accessModes", [])
        size = claim["status"].get("capacity", {}).get("storage", "?")
        if "ReadWriteMany" not in modes:
            found = f"claim {name!r} can be used on one machine only ({', '.join(modes)})"
            advice = "keep runs on one node, or ask your administrator for storage that supports ReadWriteMany"
            return Check.wrong("home", found, advice)
        return Check.ok("home", f"claim {name!r}, {size}, shared by all nodes of a run")

    def quota(self) -> Check:
        """Check how much of this namespace's quota is left."""
        listed = self._api.ask(self._api.core("resourcequotas"))["items"]
        left: dict[str, float] = {}
        for status in (item.get("status") or {} for item in listed):
            for key in _ROOM:
                if key in status.get("hard", {}):
                    used = status.get("used", {}).get(key, "0")
                    free = quantities.quantity(status["hard"][key]) - quantities.quantity(used)
                    left[key] = min(free, left.get(key, free))
        if not left:
            return Check.ok("quota", "none: only the cluster's size limits this namespace")
        summary = ", ".join(quantities.amount(key, free) for key, free in left.items()) + " left"
        # A quota of 0 is not exhaustion.
        exhausted = [key for key, free in left.items() if free <= 0 and _may(listed, key)]
        if exhausted:
            advice = "stop what you don't need: other servers in the hub, engines with %cnai cluster stop"
            return Check.wrong("quota", summary, advice)
        return Check.ok("quota", summary)

    def _noticed(self, name: str) -> float | None:
        start = time.monotonic()
        while (seconds := time.monotonic() - start) < OPERATOR_SECONDS:
            if ((self._api.engine(name) or {}).get("status") or {}).get("phase"):
                return seconds
            time.sleep(_POLL_SECONDS)
        return None


def _claim() -> str:
    return environment.HOME_CLAIM.get()


def _classless(claim: dict[str, Any]) -> bool:
    return not claim["spec"].get("storageClassName")


def _may(quotas: list[dict[str, Any]], key: str) -> bool:
    hard = [item["status"]["hard"][key] for item in quotas if key in (item.get("status") or {}).get("hard", {})]
    return all(quantities.quantity(value) > 0 for value in hard)
