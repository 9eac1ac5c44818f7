"""Profiles: what the catalog offers a person, what they chose of it, and what that means for a server.

Pure functions. The spawn page, its form and the hub's REST API all end in `Choice.of` and `choose`. A `machine` is what
local servers run on; on a cluster there is none, and which flavors fit is its scheduler's business.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from cnai import environment as variables
from cnai import reasons
from cnai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cnai.catalog import Catalog, Flavor, Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The names of the image and the flavor that somebody asks for; "" asks for the default."""

    image: str = ""
    flavor: str = ""

    @classmethod
    def of(cls, options: Mapping[str, object]) -> Choice:
        """Read the `user_options` of JupyterHub, which come from a form or from anybody's program."""
        allowed = [field.name for field in fields(cls)]
        names: dict[str, str] = {}
        for key, value in options.items():
            if key not in allowed:
                raise UsageError(f"unknown option {key!r}; allowed: {', '.join(allowed)}")
            if not isinstance(value, str):
                raise UsageError(f"{key} must be the name of one {key}; given: {value!r}")
            names[key] = value
        return cls(**names)

    @classmethod
    def last(cls, options: Mapping[str, object] | None) -> Choice:
        """Read the options of an earlier start; those that can't be are as good as none."""
        try:
            return cls.of(options or {})
        except UsageError:
            return cls()

    def options(self) -> dict[str, str]:
        """Return the choice as `user_options`, without what it leaves to the default."""
        return {key: name for key, name in asdict(self).items() if name}


@dataclass(frozen=True, slots=True)
class Option:
    """One line of the spawn page; `refusal` says why it can't be chosen here, `note` what is so just now."""

    name: str
    title: str
    summary: str
    refusal: str = ""
    chosen: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """What the spawn page shows: an image and a flavor, chosen independently."""

    images: tuple[Option, ...]
    flavors: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """An image and a flavor that were chosen together."""

    image: Image
    flavor: Flavor


def offer(
    catalog: Catalog,
    machine: Flavor | None,
    last: Choice | None = None,
    notes: Mapping[str, str] | None = None,
) -> Offer:
    """Return what a person may choose, with their last choice chosen while it still holds; notes are by flavor."""
    profile = _chosen(catalog, machine, last or Choice())
    image, flavor = (profile.image, profile.flavor) if profile else (None, None)
    return Offer(
        images=tuple(Option(each.name, each.title, each.description, chosen=each == image) for each in catalog.images),
        flavors=tuple(
            Option(
                each.name,
                each.title,
                _summary(each),
                each.shortage(machine) if machine else "",
                chosen=each == flavor,
                note=(notes or {}).get(each.name, ""),
            )
            for each in catalog.flavors
        ),
    )


def choose(choice: Choice, catalog: Catalog, machine: Flavor | None = None) -> Profile:
    """Return the profile that was chosen, or raise with a sentence; what is left out has its default."""
    image = catalog.image(choice.image) if choice.image else catalog.default_image()
    return Profile(image, _flavor(choice.flavor, catalog, machine))


def _flavor(name: str | None, catalog: Catalog, machine: Flavor | None) -> Flavor:
    if not name:
        return catalog.default_flavor(machine)
    return catalog.flavor_on(machine, name) if machine else catalog.flavor(name)


def choose_for(choice: Choice, catalog: Catalog, groups: Collection[str]) -> Profile:
    """Return the profile that a member of these groups asks for; what isn't theirs is refused like what isn't there."""
    shelf = catalog.for_groups(groups)
    for what, asked, items, everything in (
        ("image", choice.image, shelf.images, catalog.images),
        ("flavor", choice.flavor, shelf.flavors, catalog.flavors),
    ):
        if not items:
            raise UsageError(f"no {what} is open to you; ask your administrator to add you to a group that has one")
        for item in everything:
            if item.name == asked and item not in items:
                allowed = ", ".join(each.name for each in items)
                raise UsageError(
                    f"{what} {asked!r} is for members of {' or '.join(item.groups)} only; you may start: {allowed}"
                )
    return choose(choice, shelf)


def from_form(form: Mapping[str, list[str]]) -> dict[str, object]:
    """Return a submitted form as `user_options`; what can't be is left for `Choice` to refuse."""
    options: dict[str, object] = {key: values[0] if len(values) == 1 else values for key, values in form.items()}
    options.pop("_xsrf", None)
    return options


def environment(profile: Profile, visible_gpus: str | None = None) -> dict[str, str]:
    """Return what a server of this profile finds in its environment.

    A local process isn't held to its share, so these are the limits that the libraries respect:
    the first GPUs of `visible_gpus` (what the hub itself may see), and the threads of OpenMP.
    """
    seen = visible_gpus.split(",") if visible_gpus else [str(number) for number in range(profile.flavor.gpus)]
    return {
        variables.IMAGE.name: profile.image.name,
        variables.FLAVOR.name: profile.flavor.name,
        "CUDA_VISIBLE_DEVICES": ",".join(seen[: profile.flavor.gpus]),
        "OMP_NUM_THREADS": str(max(1, int(profile.flavor.cpu))),
    }


def _chosen(catalog: Catalog, machine: Flavor | None, last: Choice) -> Profile | None:
    for choice in (last, Choice()):
        try:
            return choose(choice, catalog, machine)
        except UsageError:
            continue
    return None


def _summary(flavor: Flavor) -> str:
    product = f" ({reasons.product(flavor.gpu_product)})" if flavor.gpu_product else ""
    price = f", {flavor.price_per_hour:g} per hour" if flavor.price_per_hour else ""
    limit = f", at most {flavor.max_hours:g} hours" if flavor.max_hours else ""
    return f"{flavor}{product}{price}{limit}"
