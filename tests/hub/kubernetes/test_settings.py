"""The administrator's settings below `custom.cnai`, and the messages about mistakes in them."""

from __future__ import annotations

import pytest

from cnai.catalog import Catalog, Flavor, Image
from cnai.errors import CnaiError
from cnai_hub import kubernetes
from cnai_hub.kubernetes import settings
from cnai_hub.kubernetes.settings import Home, Settings
from cnai_hub.tenants import Cluster

REFERENCE = "registry.example/cnai/notebook@sha256:" + "0" * 64
TORCH = {"name": "torch", "title": "PyTorch", "reference": REFERENCE}
SMALL = {"name": "small", "title": "Small", "cpu": 1, "memory_gib": 2}
CATALOG = {"image": [TORCH], "flavor": [SMALL]}


def test_a_catalog_is_enough():
    shelf = Catalog((Image(**TORCH),), (Flavor(**SMALL),))
    assert settings.parse({"catalog": CATALOG}) == Settings(catalog=shelf)


def test_everything_can_be_said():
    given = {
        "catalog": CATALOG,
        "cluster": {"machines": 3, "registries": ["registry.example/"], "api_servers": ["192.0.2.1/32"]},
        "url": "https://cnai.example.org/",
        "creators": "staff",
        "home": {"storage_gib": 50, "storage_class": "nfs", "access_mode": "ReadWriteOnce"},
        "cpu_share": 0.2,
        "patience_seconds": 600,
    }
    read = settings.parse(given)
    assert read.cluster == Cluster(machines=3, registries=("registry.example/",), api_servers=("192.0.2.1/32",))
    assert read.home == Home(storage_gib=50, storage_class="nfs", access_mode="ReadWriteOnce")
    assert (read.url, read.creators, read.cpu_share) == ("https://cnai.example.org/", "staff", 0.2)


def test_references_come_from_the_build():
    bare = {key: value for key, value in TORCH.items() if key != "reference"}
    read = settings.parse({"catalog": {**CATALOG, "image": [bare]}, "references": {"torch": REFERENCE}})
    assert read.catalog.image("torch").reference == REFERENCE


BARE = {"name": "torch", "title": "PyTorch"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (None, "custom.cnai must be a table with the key catalog; given: None"),
        ({}, "custom.cnai.catalog is missing"),
        ({"catalog": CATALOG, "ulr": "x"}, "custom.cnai.ulr is unknown; did you mean 'url'? (allowed: "),
        (
            {"catalog": CATALOG, "url": "cnai.example.org"},
            "custom.cnai.url must be like https://cnai.example.org/; given:",
        ),
        ({"catalog": CATALOG, "cpu_share": 0}, "custom.cnai.cpu_share must be more than 0 and at most 1; given: 0"),
        (
            {"catalog": CATALOG, "memory_share": 2},
            "custom.cnai.memory_share must be more than 0 and at most 1; given: 2",
        ),
        ({"catalog": CATALOG, "creators": ""}, "custom.cnai.creators must be the name of a group; given: ''"),
        (
            {"catalog": CATALOG, "cluster": {"machines": "many"}},
            "custom.cnai.cluster.machines must be a whole number; given: 'many'",
        ),
        (
            {"catalog": CATALOG, "home": {"access_mode": "RWX"}},
            "custom.cnai.home.access_mode must be ReadWriteMany or ReadWriteOnce; given: 'RWX'",
        ),
        (
            {"catalog": CATALOG, "home": {"storage_gib": 0}},
            "custom.cnai.home.storage_gib must be more than 0; given: 0",
        ),
        (
            {"catalog": {**CATALOG, "image": [BARE]}},
            "custom.cnai.catalog.image[0].reference is missing: what nodes pull for 'torch'; `make images` writes it",
        ),
        (
            {"catalog": CATALOG, "cluster": {"registries": ["other.example/"]}},
            "custom.cnai.catalog.image[0].reference must start with other.example/ (cluster.registries); given:",
        ),
        (
            {"catalog": CATALOG, "references": {"jax": REFERENCE}},
            "custom.cnai.references.jax is not in the catalog; images: torch",
        ),
        (
            {"catalog": CATALOG, "references": []},
            "custom.cnai.references must be a table from image to reference; given: []",
        ),
        (
            {"catalog": {**CATALOG, "flavor": [{**SMALL, "price_per_hour": -1}]}},
            "custom.cnai.catalog.flavor[0].price_per_hour must be 0 or more; given: -1",
        ),
        (
            {"catalog": {**CATALOG, "flavor": [{**SMALL, "default": True}, {**SMALL, "name": "b", "default": True}]}},
            "custom.cnai.catalog.flavor[1].default is true for small and b; only one flavor may be the default",
        ),
    ],
)
def test_mistakes_are_one_line_with_the_path(given, sentence):
    with pytest.raises(CnaiError) as raised:
        settings.parse(given)
    assert str(raised.value).startswith(sentence)
    assert "\n" not in str(raised.value)


def test_a_mistake_ends_the_hub_with_its_line():
    with pytest.raises(SystemExit) as ended:
        kubernetes.configure(None, {"catalog": CATALOG, "ulr": "x"})
    assert str(ended.value).startswith("cnai: custom.cnai.ulr is unknown; did you mean 'url'?")
