"""Writes the references of pushed images into a Helm values file, which is read after helm-values.yaml."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

from images.chain import ImageError

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER = "# Written by `make images`, read after helm-values.yaml: what was built. JSON, which is YAML, too.\n"
_HUB = "hub"


def write(text: str, references: Mapping[str, str], catalog: str) -> str:
    """Return the text of a values file with these references added; its references of other images stay.

    The keys of `references` are the folders of Dockerfiles; the file's keys are the catalog's names of the images.
    """
    try:
        values: dict[str, Any] = json.loads(text.removeprefix(HEADER) or "{}")
    except ValueError:
        raise ImageError("--values names a file that `make images` did not write; name a new one") from None
    if named := _by_name(references, catalog):
        settings = values.setdefault("custom", {}).setdefault("cnai", {})
        settings["references"] = {**settings.get("references", {}), **named}
    if _HUB in references:
        image = _image(references[_HUB])
        values |= {"hub": {"image": image}, "proxy": {"chp": {"image": image}}}
    return HEADER + json.dumps(values, indent=2) + "\n"


def _by_name(references: Mapping[str, str], catalog: str) -> dict[str, str]:
    tables = tomllib.loads(catalog).get("image", [])
    folders = {table["name"]: table.get("dockerfile", "").partition("/")[0] for table in tables}
    return {name: references[folder] for name, folder in folders.items() if folder in references}


def _image(reference: str) -> dict[str, str]:
    """Split a reference at its last colon, because the chart joins name and tag with a colon; a digest has one, too."""
    name, _, tag = reference.rpartition(":")
    return {"name": name, "tag": tag}
