import textwrap

import pytest

from cnai import catalog
from cnai.catalog import Flavor
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
    assert catalog.load().flavor("small").fits(machine) == holds


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
        (("cpu = 1", "cpu = -1"), r"catalog.toml:8: flavor: cpu must be 0 or more; given: -1"),
        (("cpu = 1", 'cpu = "one"'), r"catalog.toml:8: flavor: cpu must be float; given: 'one'"),
        (("cpu = 1", "cpu = 1\ncpus = 2"), r"catalog.toml:9: flavor: unknown key 'cpus'; allowed: cpu, default"),
        (("cpu = 1\n", ""), r"catalog.toml:5: flavor: 'cpu' is missing"),
        (('"small"', '"Small One"'), r"catalog.toml:6: flavor: name must be lowercase"),
        (('title = "PyTorch"', "title = "), r"catalog.toml: Invalid value"),
        (("[[image]]", "[[picture]]"), r"catalog.toml:1: unknown table 'picture'; allowed: image, flavor"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        catalog.load(write(tmp_path, GOOD.replace(*change)))


def test_two_defaults_and_two_names(tmp_path):
    small = GOOD[GOOD.index("[[flavor]]") :]
    twice = GOOD + "default = true\n" + small.replace("small", "other") + "default = true\n"
    with pytest.raises(UsageError, match="small and other are both default; only one flavor may be"):
        catalog.load(write(tmp_path, twice))
    with pytest.raises(UsageError, match="two flavors are named 'small'"):
        catalog.load(write(tmp_path, GOOD + small))


def test_another_catalog_by_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("CNAI_CATALOG", str(write(tmp_path, GOOD)))
    assert [flavor.name for flavor in catalog.load().flavors] == ["small"]
