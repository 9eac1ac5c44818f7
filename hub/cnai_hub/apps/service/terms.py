"""Terms: the images and flavors that an app may use, which are those that its author may start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnai.errors import UsageError
from cnai_hub import profiles

if TYPE_CHECKING:
    from collections.abc import Collection

    from cnai.catalog import Catalog
    from cnai_hub.apps.snapshot import Wanted


@dataclass(frozen=True, slots=True)
class Terms:
    """The hub's catalog; if apps are pods (`in_pods`), each has an image, and none can access its author's files."""

    catalog: Catalog
    in_pods: bool = False

    def environment(self, wanted: Wanted, groups: Collection[str]) -> dict[str, str]:
        """Return the variables that keep a trial from what the app won't have: the GPUs of its author's server."""
        if not wanted.flavor and not self.in_pods:  # such an app may use the whole machine
            return {}
        choice = profiles.Choice(flavor=wanted.flavor)
        flavor = profiles.choose_for(choice, self.catalog, groups).flavor
        return {} if flavor.gpus else {"CUDA_VISIBLE_DEVICES": ""}

    def check(self, wanted: Wanted, groups: Collection[str]) -> None:
        """Raise UsageError unless an author in these groups may use the requested image and flavor.

        The author's server reports the image that it runs; a reference that is not in the catalog is refused, so that
        authors can't use images of their own.
        """
        offer = self.catalog.for_groups(groups)
        if wanted.flavor:
            offer.flavor(wanted.flavor)
        if not self.in_pods:
            return
        if not wanted.image or not wanted.reference:
            raise UsageError("an app runs the image of the server that publishes it; publish from a notebook server")
        if offer.image(wanted.image).reference != wanted.reference:
            raise UsageError(
                f"this server runs {wanted.reference}, which is not image {wanted.image!r} of the catalog; "
                "stop the server, start it again and publish from there"
            )
