import json
import textwrap
from dataclasses import replace

import pytest

from cnai import catalog
from cnai.catalog import Catalog, Flavor, Image
from cnai.errors import UnknownName, UsageError

GOOD = """\
[[image]]
name = "torch"
title = "PyTorch"

[[flavor]]
name = "small"
title = "Small"
cpu = 1
memory_gib = 2.5
"""


def write(tmp_path, text):
    path = tmp_path / "catalog.toml"
    path.write_text(textwrap.dedent(text))
    return path


def test_shipped_catalog_is_valid():
    shelf = catalog.load()
    assert shelf.image("torch").default
    assert shelf.flavor("medium").default


def test_flavors_that_fit():
    shelf = catalog.load()
    machine = Flavor(name="m", title="m", cpu=2, memory_gib=7.5, gpus=0)
    assert [flavor.name for flavor in shelf.that_fit(machine)] == ["small", "medium"]
    with_gpus = Flavor(name="m", title="m", cpu=64, memory_gib=512, gpus=4)
    assert shelf.that_fit(with_gpus) == shelf.flavors


@pytest.mark.parametrize(("reported", "holds"), [(2.0, True), (1.9, True), (1.7, False)])
def test_machines_report_less_memory_than_they_are_sold_with(reported, holds):
    machine = Flavor(name="m", title="m", cpu=2, memory_gib=reported)
    assert (not catalog.load().flavor("small").shortage(machine)) == holds


def test_this_machine_holds_something():
    machine = catalog.this_machine()
    assert machine.cpu >= 1
    assert machine.memory_gib > 0.1


def test_unknown_name_names_the_nearest():
    with pytest.raises(UnknownName, match="unknown flavor 'smal'; did you mean 'small'"):
        catalog.load().flavor("smal")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("cpu = 1", "cpu = -1"), ":8: flavor[0].cpu must be 0 or more; given: -1"),
        (("cpu = 1", "cpu = 0"), ":8: flavor[0].cpu must be more than 0; given: 0"),
        (("cpu = 1", "cpu = nan"), ":8: flavor[0].cpu must be 0 or more; given: nan"),
        (("cpu = 1", 'cpu = "one"'), ":8: flavor[0].cpu must be a number; given: 'one'"),
        (("cpu = 1", "cpu = true"), ":8: flavor[0].cpu must be a number; given: True"),
        (
            ("cpu = 1", "cpu = 1\ncpus = 2"),
            ":9: flavor[0].cpus is unknown; did you mean 'cpu'? (allowed: cpu, default, gpu_product, gpus, groups,"
            " max_hours, memory_gib, name, price_per_hour, title)",
        ),
        (("cpu = 1\n", ""), ":5: flavor[0].cpu is missing"),
        (
            ("cpu = 1", 'cpu = 1\ngpu_product = "T4"'),
            ":9: flavor[0].gpu_product needs gpus of 1 or more; given: 'T4' without",
        ),
        (("cpu = 1", "cpu = 1\ngroups = [1]"), ":9: flavor[0].groups[0] must be text; given: 1"),
        (("cpu = 1", 'cpu = 1\ngroups = "a"'), ":9: flavor[0].groups must be a list; given: 'a'"),
        (
            ('title = "PyTorch"', 'title = "PyTorch"\nreference = "a b"'),
            ":4: image[0].reference must be like registry/repository@sha256:…; given: 'a b'",
        ),
        (
            ('"small"', '"Small One"'),
            ":6: flavor[0].name must be lowercase letters, digits and '-', at most 30; given: 'Small One'",
        ),
        (("[[image]]", "[[picture]]"), ":1: picture is unknown (allowed: flavor, image)"),
        (("[[image]]", "[image]"), ":1: image must be a list of tables, [[image]] in TOML; given:"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path, change, message):
    path = write(tmp_path, GOOD.replace(*change))
    with pytest.raises(UsageError) as raised:
        catalog.load(path)
    assert str(raised.value).startswith(f"{path}{message}")


def test_text_that_is_no_toml_and_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"catalog.toml: Invalid value"):
        catalog.load(write(tmp_path, GOOD.replace('title = "PyTorch"', "title = ")))
    with pytest.raises(UsageError, match=r"gone.toml: .*No such file"):
        catalog.load(tmp_path / "gone.toml")


def test_two_defaults_and_two_names(tmp_path):
    small = GOOD[GOOD.index("[[flavor]]") :]
    twice = GOOD + "default = true\n" + small.replace("small", "other") + "default = true\n"
    with pytest.raises(UsageError, match=r":16: flavor\[1\].default is true for small and other; only one"):
        catalog.load(write(tmp_path, twice))
    with pytest.raises(UsageError, match=r":11: flavor\[1\].name is 'small' for two flavors; names must differ"):
        catalog.load(write(tmp_path, GOOD + small))


def test_another_catalog_by_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("CNAI_CATALOG", str(write(tmp_path, GOOD)))
    assert [flavor.name for flavor in catalog.load().flavors] == ["small"]


IMAGE = Image(name="torch", title="PyTorch", reference="r.example/cnai/notebook@sha256:" + "0" * 64)
SECRET = Image(name="secret", title="Secret", groups=("staff",))
SMALL = Flavor(name="small", title="Small", cpu=0.5, memory_gib=2)
H100 = Flavor(
    name="gpu-h100",
    title="H100 “fast”",
    cpu=4,
    memory_gib=64,
    gpus=2,
    gpu_product="NVIDIA-H100-80GB-HBM3",
    price_per_hour=3.5,
    groups=("research", "staff"),
    max_hours=8,
    default=True,
)
SHELF = Catalog(images=(IMAGE, SECRET), flavors=(SMALL, H100))


@pytest.mark.parametrize(
    ("groups", "images", "flavors"),
    [
        ((), (IMAGE,), (SMALL,)),
        (("guests",), (IMAGE,), (SMALL,)),
        (["research"], (IMAGE,), (SMALL, H100)),
        ({"staff", "guests"}, (IMAGE, SECRET), (SMALL, H100)),
    ],
)
def test_groups_decide_what_may_be_started(groups, images, flavors):
    assert SHELF.for_groups(groups) == Catalog(images, flavors)


def test_a_catalog_travels_as_text(monkeypatch):
    text = SHELF.to_json()
    assert json.loads(text)["flavor"][0] == {"name": "small", "title": "Small", "cpu": 0.5, "memory_gib": 2}
    assert catalog.parse(json.loads(text), "values") == SHELF
    monkeypatch.setenv("CNAI_CATALOG", text)
    assert catalog.load() == SHELF


CPU = {"name": "cpu", "title": "", "cpu": 1, "memory_gib": 1}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"image": [{"name": "torch", "title": ""}], "flavor": [{**CPU, "price_per_hour": -1}]},
            "custom.cnai.catalog.flavor[0].price_per_hour must be 0 or more; given: -1",
        ),
        ({"image": [{"name": "torch", "title": ""}]}, "custom.cnai.catalog.flavor is empty; name at least one"),
        ({"images": []}, "custom.cnai.catalog.images is unknown; did you mean 'image'? (allowed: flavor, image)"),
        ({"image": ["torch"]}, "custom.cnai.catalog.image[0] must be a table; given: 'torch'"),
        ({"image": None}, "custom.cnai.catalog.image must be a list of tables, [[image]] in TOML; given: None"),
        ([], "custom.cnai.catalog must be a table of image and flavor; given: []"),
    ],
)
def test_mistakes_in_values_are_named_with_their_path(tables, message):
    with pytest.raises(UsageError) as raised:
        catalog.parse(tables, "custom.cnai.catalog")
    assert str(raised.value) == message


def test_mistakes_in_text_name_the_variable(monkeypatch):
    monkeypatch.setenv("CNAI_CATALOG", '{"image": ')
    with pytest.raises(UsageError, match=r"^\$CNAI_CATALOG begins like JSON but isn't valid JSON: Expecting value"):
        catalog.load()
    monkeypatch.setenv("CNAI_CATALOG", '{"image": [{"name": "torch"}]}')
    with pytest.raises(UsageError, match=r"^\$CNAI_CATALOG.image\[0\].title is missing$"):
        catalog.load()


def test_the_flavor_of_whoever_names_none():
    small, large = (Flavor(name=name, title=name, cpu=cpu, memory_gib=4) for name, cpu in (("small", 1), ("large", 4)))
    gpu = Flavor(name="gpu", title="gpu", cpu=1, memory_gib=4, gpus=1)
    images = (catalog.Image(name="torch", title="torch"),)
    shelf = catalog.Catalog(images, (gpu, large, small))
    assert shelf.default_flavor() == small  # on a cluster everything costs
    assert shelf.default_flavor(Flavor(name="m", title="m", cpu=8, memory_gib=8, gpus=2)) == large
    marked = catalog.Catalog(images, (small, replace(gpu, default=True)))
    assert marked.default_flavor().name == "gpu"
    assert marked.default_flavor(Flavor(name="m", title="m", cpu=8, memory_gib=8)) == small
