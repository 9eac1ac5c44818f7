"""Catalog: the one list of images and flavors that people can start (`images/catalog.toml`)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cnai import environment
from cnai.errors import UnknownName, UsageError
from cnai.paths import shipped
from cnai.tables import Mistake, build, unknown

if TYPE_CHECKING:
    from collections.abc import Collection

KEPT_MEMORY = 0.1
"""Share of its memory that a machine's firmware and kernel may keep while a flavor of the full size still fits."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")
_REFERENCE = re.compile(r"[a-z0-9][\w.:/-]*(@sha256:[0-9a-f]{64})?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A container image; on one machine the environment in which cnai is installed.

    `reference` is what Kubernetes pulls (`repository@sha256:…`); the build of the images writes it.
    Members of `groups` may start it; without groups, all people may.
    """

    name: str
    title: str
    description: str = ""
    dockerfile: str = ""
    packages: tuple[str, ...] = ()
    reference: str = ""
    groups: tuple[str, ...] = ()
    default: bool = False

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.reference and not _REFERENCE.fullmatch(self.reference):
            raise Mistake(("reference",), f"must be like registry/repository@sha256:…; given: {self.reference!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavor:
    """A named bundle of hardware. `price_per_hour` is in the administrator's currency.

    Members of `groups` may start it; without groups, all people may. The hub stops a server after `max_hours`.
    """

    name: str
    title: str
    cpu: float
    memory_gib: float
    gpus: int = 0
    gpu_product: str = ""
    price_per_hour: float = 0.0
    groups: tuple[str, ...] = ()
    max_hours: float | None = None
    default: bool = False

    def __post_init__(self) -> None:
        _check_name(self.name)
        for key in ("cpu", "memory_gib", "max_hours"):
            if getattr(self, key) == 0:
                raise Mistake((key,), "must be more than 0; given: 0")
        if self.gpu_product and not self.gpus:
            raise Mistake(("gpu_product",), f"needs gpus of 1 or more; given: {self.gpu_product!r} without gpus")

    def shortage(self, machine: Flavor) -> str:
        """Return why a machine can't hold this flavor, "" if it can."""
        if self.gpus and not machine.gpus:
            return "this machine has no GPU"
        if self.gpus > machine.gpus:
            return f"this machine has {machine.gpus} GPU{'s' if machine.gpus > 1 else ''}"
        if self.cpu > machine.cpu:
            return f"this machine has {machine.cpu:g} CPU{'s' if machine.cpu > 1 else ''}"
        if self.memory_gib > machine.memory_gib / (1 - KEPT_MEMORY):
            return f"this machine has {machine.memory_gib:.1f} GiB of memory"
        return ""

    def __str__(self) -> str:
        gpus = f", {self.gpus} GPU" if self.gpus else ""
        return f"{self.cpu:g} CPU, {self.memory_gib:g} GiB{gpus}"


@dataclass(frozen=True, slots=True)
class Catalog:
    """Images and flavors in the order in which pages show them."""

    images: tuple[Image, ...]
    flavors: tuple[Flavor, ...]

    def image(self, name: str) -> Image:
        """Return the image of this name."""
        return _named("image", name, self.images)

    def flavor(self, name: str) -> Flavor:
        """Return the flavor of this name."""
        return _named("flavor", name, self.flavors)

    def that_fit(self, machine: Flavor) -> tuple[Flavor, ...]:
        """Return the flavors that a machine can hold."""
        return tuple(flavor for flavor in self.flavors if not flavor.shortage(machine))

    def flavor_on(self, machine: Flavor, name: str) -> Flavor:
        """Return the flavor of this name; raises UsageError if the machine can't hold it."""
        flavor = self.flavor(name)
        if why := flavor.shortage(machine):
            fitting = ", ".join(fit.name for fit in self.that_fit(machine)) or "none"
            raise UsageError(f"flavor {name!r} ({flavor}) can't be started here: {why}; this machine holds: {fitting}")
        return flavor

    def default_image(self) -> Image:
        """Return the image for requests that name none."""
        if not self.images:
            raise UsageError("no image is available to you; ask your administrator")
        return next((image for image in self.images if image.default), self.images[0])

    def default_flavor(self, machine: Flavor | None = None) -> Flavor:
        """Return the flavor for requests that name none: the catalog's default, otherwise the largest that fits.

        On a cluster (no machine), where everything costs and something always fits, the smallest without GPUs instead.
        """
        fitting = self._startable(machine)
        if default := next((flavor for flavor in fitting if flavor.default), None):
            return default
        if machine is None:
            return min(fitting, key=lambda flavor: (flavor.gpus, flavor.cpu, flavor.memory_gib))
        without_gpus = [flavor for flavor in fitting if not flavor.gpus]
        return max(without_gpus or fitting, key=lambda flavor: (flavor.cpu, flavor.memory_gib))

    def _startable(self, machine: Flavor | None) -> tuple[Flavor, ...]:
        """Return the flavors that can be started; raises UsageError if there are none."""
        if not self.flavors:
            raise UsageError("no flavor is available to you; ask your administrator")
        fitting = self.that_fit(machine) if machine else self.flavors
        if machine and not fitting:
            has = f"{machine.cpu:g} CPU, {machine.memory_gib:.1f} GiB"
            advice = f"add a smaller one ({environment.CATALOG})"
            raise UsageError(f"this machine ({has}) holds no flavor of the catalog; {advice}")
        return fitting

    def for_groups(self, groups: Collection[str]) -> Catalog:
        """Return the images and flavors that members of these groups may start."""
        return Catalog(_open(self.images, groups), _open(self.flavors, groups))

    def to_json(self) -> str:
        """Return JSON text from which `load` reads the same catalog."""
        tables = {"image": [_table(each) for each in self.images], "flavor": [_table(each) for each in self.flavors]}
        return json.dumps(tables, ensure_ascii=False)


_Item = TypeVar("_Item", Image, Flavor)


def _named(what: str, name: str, items: tuple[_Item, ...]) -> _Item:
    for item in items:
        if item.name == name:
            return item
    raise UnknownName(what, name, [item.name for item in items])


def _open(items: tuple[_Item, ...], groups: Collection[str]) -> tuple[_Item, ...]:
    return tuple(item for item in items if not item.groups or set(item.groups) & set(groups))


def _table(item: Image | Flavor) -> dict[str, Any]:
    plain = {field.name: field.default for field in fields(item)}
    return {key: value for key, value in asdict(item).items() if value != plain[key]}


def load(source: str | Path | None = None) -> Catalog:
    """Read a catalog from a file, or from JSON text of the same tables.

    Default: `$CNAI_CATALOG`, otherwise the catalog that cnai ships. Errors name file, line and key.
    """
    source = source or environment.CATALOG.get() or shipped("images/catalog.toml")
    if str(source).lstrip().startswith("{"):
        return _from_json(str(source))
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from None
    try:
        return _catalog(tables)
    except Mistake as mistake:
        raise UsageError(f"{path}:{_line(text, mistake.path)}: {mistake}") from None


def parse(tables: Any, where: str) -> Catalog:
    """Return a catalog from `{"image": [...], "flavor": [...]}`; errors name the key's path below `where`."""
    try:
        return _catalog(tables)
    except Mistake as mistake:
        raise Mistake(mistake.path, mistake.why, under=where) from None


def _from_json(text: str) -> Catalog:
    try:
        tables = json.loads(text)
    except ValueError as error:
        raise UsageError(f"${environment.CATALOG} begins like JSON but isn't valid JSON: {error}") from None
    return parse(tables, f"${environment.CATALOG}")


def _catalog(tables: Any) -> Catalog:
    if not isinstance(tables, dict):
        raise Mistake((), f"must be a table of image and flavor; given: {tables!r}")
    for key in tables:
        if key not in {"image", "flavor"}:
            raise Mistake((key,), unknown(key, {"image": 0, "flavor": 0}))
    return Catalog(_items(Image, tables, "image"), _items(Flavor, tables, "flavor"))


def _items(cls: type[_Item], tables: dict[str, Any], what: str) -> tuple[_Item, ...]:
    given = tables.get(what, [])
    if not isinstance(given, list):
        raise Mistake((what,), f"must be a list of tables, [[{what}]] in TOML; given: {given!r}")
    if not given:
        raise Mistake((what,), "is empty; name at least one")
    items = [build(cls, table, (what, number)) for number, table in enumerate(given)]
    for number, item in enumerate(items):
        earlier = items[:number]
        if item.name in {each.name for each in earlier}:
            raise Mistake((what, number, "name"), f"is {item.name!r} for two {what}s; names must differ")
        if item.default and (two := [each.name for each in earlier if each.default]):
            raise Mistake(
                (what, number, "default"), f"is true for {two[0]} and {item.name}; only one {what} may be the default"
            )
    return tuple(items)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise Mistake(("name",), f"must be lowercase letters, digits and '-', at most 30; given: {name!r}")


def _line(text: str, path: tuple[str | int, ...]) -> int:
    """Return the line of a key; if it is missing, the line of its table, otherwise 1."""
    table, number, key = (*path, None, None, None)[:3]
    lines = list(enumerate(text.splitlines(), 1))
    starts = [at for at, line in lines if re.match(rf"\s*(\[\s*)*[\"']?{re.escape(str(table))}\b", line)]
    if not starts:
        return 1
    start = starts[number] if isinstance(number, int) and number < len(starts) else starts[0]
    for at, line in lines[start:]:
        if line.lstrip().startswith("[["):
            break
        if re.match(rf"\s*[\"']?{re.escape(str(key))}\b", line):
            return at
    return start


@cache
def this_machine() -> Flavor:
    """Return this machine's hardware as a flavor: the CPUs that this process may use, memory, and NVIDIA GPUs."""
    return Flavor(
        name="this-machine",
        title="This machine",
        cpu=float(len(os.sched_getaffinity(0))),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        gpus=_count_gpus(),
    )


def _count_gpus() -> int:
    try:
        command = ["nvidia-smi", "--list-gpus"]
        listing = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())
