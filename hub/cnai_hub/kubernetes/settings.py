"""The administrator's settings below `custom.cnai`, read strictly: a mistake is one line with the key's path."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlparse

from cnai import catalog
from cnai.catalog import Catalog  # noqa: TC001 - read when tables are
from cnai.tables import Mistake, build
from cnai_hub import roles
from cnai_hub.tenants import Cluster

WHERE = "custom.cnai"


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The home folder of each user: one claim, for all of their servers and training nodes.

    `access_mode` should be ReadWriteMany if the storage class supports it; runs on several machines need it.
    """

    storage_gib: float = 20
    storage_class: str = ""
    access_mode: str = "ReadWriteMany"

    def __post_init__(self) -> None:
        modes = ("ReadWriteMany", "ReadWriteOnce")
        if self.access_mode not in modes:
            raise Mistake(("access_mode",), f"must be {' or '.join(modes)}; given: {self.access_mode!r}")
        if not self.storage_gib:
            raise Mistake(("storage_gib",), "must be more than 0; given: 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Our settings of a cluster's hub.

    People open `url`, and pods reach the same pages at `inside` (`configure` fills in the chart's proxy). The proxy
    reaches the apps service at `apps_service` (default: port 8082 of the hub's pod). Members of the group `creators`
    have servers and publish; everybody else opens apps. A pod requests the shares `cpu_share` and `memory_share` of its
    flavor's limits. A server that finds no node waits `patience_seconds` for one.
    """

    catalog: Catalog
    cluster: Cluster = field(default_factory=Cluster)
    url: str = ""
    inside: str = ""
    apps_service: str = ""
    creators: str = roles.CREATORS
    home: Home = field(default_factory=Home)
    cpu_share: float = 0.1
    memory_share: float = 0.5
    patience_seconds: float = 120

    def __post_init__(self) -> None:
        for key in ("url", "inside", "apps_service"):
            given = getattr(self, key)
            if given and (urlparse(given).scheme not in {"http", "https"} or not urlparse(given).netloc):
                raise Mistake((key,), f"must be like https://cnai.example.org/; given: {given!r}")
        for key in ("cpu_share", "memory_share"):
            if not 0 < getattr(self, key) <= 1:
                raise Mistake((key,), f"must be more than 0 and at most 1; given: {getattr(self, key):g}")
        if not self.creators:
            raise Mistake(("creators",), "must be the name of a group; given: ''")


def parse(tables: Any, where: str = WHERE) -> Settings:
    """Return the settings of `{"catalog": {...}, "references": {image: reference}, "cluster": {...}, ...}`."""
    if not isinstance(tables, dict):
        raise Mistake((), f"must be a table with the key catalog; given: {tables!r}", under=where)
    given = dict(tables)
    references = given.pop("references", {})
    try:
        if "catalog" in given:
            shelf = catalog.parse(_with_references(given["catalog"], references), f"{where}.catalog")
            _check_references(shelf, given.get("cluster"))
            given["catalog"] = shelf
        return build(Settings, given)
    except Mistake as mistake:
        inside = str(mistake).startswith(where)  # mistakes in the catalog already have the full path
        raise mistake if inside else Mistake(mistake.path, mistake.why, under=where) from None


def _with_references(tables: Any, references: Any) -> Any:
    """Add the references, which the build of the images wrote, to the tables of images."""
    if not isinstance(references, dict):
        raise Mistake(("references",), f"must be a table from image to reference; given: {references!r}")
    images = tables.get("image") if isinstance(tables, dict) else None
    if not isinstance(images, list):
        return tables
    names = [image.get("name") for image in images if isinstance(image, dict)]
    for name in references:
        if name not in names:
            raise Mistake(("references", name), f"is not in the catalog; images: {', '.join(map(str, names))}")
    return {**tables, "image": [_with_reference(image, references) for image in images]}


def _with_reference(image: Any, references: dict[str, object]) -> Any:
    if not isinstance(image, dict) or image.get("name") not in references:
        return image
    return {**image, "reference": references[image["name"]]}


def _check_references(shelf: Catalog, cluster: Any) -> None:
    prefixes = cluster.get("registries") if isinstance(cluster, dict) else None
    for number, image in enumerate(shelf.images):
        path = ("catalog", "image", number, "reference")
        if not image.reference:
            raise Mistake(path, f"is missing: what nodes pull for {image.name!r}; `make images` writes it")
        if isinstance(prefixes, list) and prefixes and not image.reference.startswith(tuple(map(str, prefixes))):
            allowed = " or ".join(map(str, prefixes))
            raise Mistake(path, f"must start with {allowed} (cluster.registries); given: {image.reference!r}")
