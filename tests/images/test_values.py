"""What is pushed reaches the chart: references of the catalog's images, and the image of hub and proxy."""

import pytest
import yaml
import z2jh

from images import chain, values
from images.chain import ImageError

HUB = "registry.example.org/cnai/hub@sha256:" + "0" * 64
CATALOG = (chain.FOLDER / "catalog.toml").read_text()
NOTEBOOK = "registry.example.org/cnai/notebook@sha256:" + "1" * 64


def test_the_chart_puts_name_and_tag_together_again():
    given = yaml.safe_load(values.write("", {"hub": HUB, "notebook": NOTEBOOK, "base": HUB}, CATALOG))
    assert given["custom"] == {"cnai": {"references": {"torch": NOTEBOOK}}}
    manifests = z2jh.manifests(given, namespace="cnai", secrets=z2jh.new_secrets())
    used = [
        each["spec"]["template"]["spec"]["containers"][0]["image"] for each in manifests if each["kind"] == "Deployment"
    ]
    assert used == [HUB, HUB]


def test_what_was_built_before_stays():
    before = values.write("", {"hub": HUB, "notebook": NOTEBOOK, "base": HUB}, CATALOG)
    after = values.write(before, {"notebook": NOTEBOOK.replace("1", "2")}, CATALOG)
    assert after == before.replace("1" * 64, "2" * 64)
    assert values.write(after, {}, CATALOG) == after


def test_values_of_somebody_else_are_not_overwritten():
    with pytest.raises(ImageError, match="name a new one"):
        values.write("hub: {}\n", {"hub": HUB}, CATALOG)
