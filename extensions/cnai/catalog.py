"""Catalog: the one list of images and flavors that people can start (`images/catalog.toml`)."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from cnai.errors import UnknownName, UsageError
from cnai.paths import shipped

KEPT_MEMORY = 0.1
"""Share of its memory that a machine may keep for firmware and kernel and still be sold under the full number."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A container image, on one machine the environment that cnai is installed in."""

    name: str
    title: str
    description: str = ""
    dockerfile: str = ""
    packages: tuple[str, ...] = ()
    digest: str = ""
    default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavor:
    """A named bundle of hardware. `price_per_hour` is in the currency of whoever keeps the catalog."""

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

    def fits(self, machine: Flavor) -> bool:
        """Tell whether a machine can hold this flavor."""
        memory_gib = machine.memory_gib / (1 - KEPT_MEMORY)
        return self.cpu <= machine.cpu and self.memory_gib <= memory_gib and self.gpus <= machine.gpus

    def __str__(self) -> str:
        gpus = f", {self.gpus} GPU" if self.gpus else ""
        return f"{self.cpu:g} CPU, {self.memory_gib:g} GiB{gpus}"


@dataclass(frozen=True, slots=True)
class Catalog:
    """Images and flavors in the order they are shown."""

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
        return tuple(flavor for flavor in self.flavors if flavor.fits(machine))


_Item = TypeVar("_Item", Image, Flavor)


def _named(what: str, name: str, items: tuple[_Item, ...]) -> _Item:
    for item in items:
        if item.name == name:
            return item
    raise UnknownName(what, name, [item.name for item in items])


def load(path: Path | None = None) -> Catalog:
    """Read a catalog; default: `$CNAI_CATALOG`, else the one that comes with cnai.

    Errors name file, line and key.
    """
    path = path or Path(os.environ.get("CNAI_CATALOG") or shipped("images/catalog.toml"))
    try:
        text = path.read_text(encoding="utf-8")
        tables: dict[str, Any] = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from None
    for key in tables.keys() - {"image", "flavor"}:
        raise UsageError(f"{path}:{_line(text, key)}: unknown table {key!r}; allowed: image, flavor")
    return Catalog(
        images=_items(Image, tables.get("image", []), path, text, "image"),
        flavors=_items(Flavor, tables.get("flavor", []), path, text, "flavor"),
    )


def _items(cls: type[_Item], tables: list[dict[str, Any]], path: Path, text: str, what: str) -> tuple[_Item, ...]:
    if not tables:
        raise UsageError(f"{path}: no [[{what}]]; name at least one")
    starts = [number for number, line in enumerate(text.splitlines(), 1) if line.strip() == f"[[{what}]]"]
    items = []
    for start, table in zip(starts, tables, strict=True):
        try:
            items.append(_item(cls, table))
        except _BadKey as bad:
            raise UsageError(f"{path}:{_line(text, bad.key, start)}: {what}: {bad}") from None
    names = [item.name for item in items]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{path}: two {what}s are named {name!r}; names must differ")
    defaults = [item.name for item in items if item.default]
    if len(defaults) > 1:
        raise UsageError(f"{path}: {' and '.join(defaults)} are both default; only one {what} may be")
    return tuple(items)


class _BadKey(Exception):
    def __init__(self, key: str, why: str) -> None:
        self.key = key
        super().__init__(why)


def _item(cls: type[_Item], table: dict[str, Any]) -> _Item:
    known = {f.name: f for f in fields(cls)}
    for key, value in table.items():
        if key not in known:
            raise _BadKey(key, f"unknown key {key!r}; allowed: {', '.join(sorted(known))}")
        _check(key, value, str(known[key].type))
    for key, f in known.items():
        if key not in table and f.default is MISSING:
            raise _BadKey("", f"{key!r} is missing")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    return cls(**values)


_ACCEPTED: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "tuple": (list,),
}


def _check(key: str, value: Any, annotation: str) -> None:
    kind = re.split(r"\W", annotation)[0]
    if not isinstance(value, _ACCEPTED[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise _BadKey(key, f"{key} must be {kind.replace('tuple', 'a list')}; given: {value!r}")
    if isinstance(value, int | float) and value < 0:
        raise _BadKey(key, f"{key} must be 0 or more; given: {value}")
    if isinstance(value, str) and key == "name" and not _NAME.fullmatch(value):
        raise _BadKey(key, f"name must be lowercase letters, digits and '-', at most 30; given: {value!r}")


def _line(text: str, key: str, start: int = 1) -> int:
    for number, line in enumerate(text.splitlines(), 1):
        if number >= start and key and re.match(rf"\s*\[*\s*{re.escape(key)}\b", line):
            return number
    return start


@cache
def this_machine() -> Flavor:
    """Return what this machine has, as a flavor: CPUs that this process may use, memory, and NVIDIA GPUs."""
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
