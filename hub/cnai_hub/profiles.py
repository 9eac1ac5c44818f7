"""Profiles: the images and flavors that a person may choose, and the settings of a server with a chosen one.

Pure functions. The spawn page, its form and the hub's REST API all use `Choice.of` and `choose`. `machine` is the
machine that local servers run on; on a cluster it is None, and the cluster's scheduler decides which flavors fit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from cnai import environment as variables
from cnai import quantities
from cnai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cnai.catalog import Catalog, Flavor, Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The names of the image and the flavor that a user requests; "" requests the default."""

    image: str = ""
    flavor: str = ""

    @classmethod
    def of(cls, options: Mapping[str, object]) -> Choice:
        """Read the `user_options` of JupyterHub, which a form or any REST client sent."""
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
        """Read the options of an earlier start; invalid ones count as none."""
        try:
            return cls.of(options or {})
        except UsageError:
            return cls()

    def options(self) -> dict[str, str]:
        """Return the choice as `user_options`, without the fields that are left to the default."""
        return {key: name for key, name in asdict(self).items() if name}


@dataclass(frozen=True, slots=True)
class Option:
    """One line of the spawn page; `refusal` says why it can't be chosen here, `note` describes what is free now."""

    name: str
    title: str
    summary: str
    refusal: str = ""
    chosen: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """The images and flavors on the spawn page, chosen independently."""

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
    """Return a person's options, with their last choice preselected if it is still valid; `notes` are by flavor."""
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
    """Return the chosen profile, with defaults for missing names; UsageError if it isn't available."""
    image = catalog.image(choice.image) if choice.image else catalog.default_image()
    return Profile(image, _flavor(choice.flavor, catalog, machine))


def _flavor(name: str | None, catalog: Catalog, machine: Flavor | None) -> Flavor:
    if not name:
        return catalog.default_flavor(machine)
    return catalog.flavor_on(machine, name) if machine else catalog.flavor(name)


def choose_for(choice: Choice, catalog: Catalog, groups: Collection[str]) -> Profile:
    """Return the profile that a member of these groups requests; UsageError if it isn't open to them."""
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
    """Return a submitted form as `user_options`; `Choice` refuses invalid values later."""
    options: dict[str, object] = {key: values[0] if len(values) == 1 else values for key, values in form.items()}
    options.pop("_xsrf", None)
    return options


def environment(profile: Profile, visible_gpus: str | None = None) -> dict[str, str]:
    """Return the environment variables of a server with this profile.

    Nothing enforces the limits of a local process, so these variables limit the libraries: they name the first GPUs of
    `visible_gpus` (those that the hub itself may use), and the number of OpenMP threads.
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
    product = f" ({quantities.product(flavor.gpu_product)})" if flavor.gpu_product else ""
    price = f", {flavor.price_per_hour:g} per hour" if flavor.price_per_hour else ""
    limit = f", at most {flavor.max_hours:g} hours" if flavor.max_hours else ""
    return f"{flavor}{product}{price}{limit}"
