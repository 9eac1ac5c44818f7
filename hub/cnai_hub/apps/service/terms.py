"""Terms: what an app may run on. Its author can't give it more than they may start themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnai.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

    from cnai.catalog import Catalog
    from cnai_hub.apps.snapshot import Wanted


@dataclass(frozen=True, slots=True)
class Terms:
    """What the hub offers, and whether apps are pods: then each has an image, and none reaches its author's files."""

    catalog: Catalog
    in_pods: bool = False

    def check(self, wanted: Wanted, groups: Collection[str]) -> None:
        """Raise UsageError unless an author in these groups may have this.

        The image is what the author's server says that it runs; a reference that the catalog doesn't have is refused,
        so that nobody brings an image of their own.
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
