"""Offers of the catalog on a machine, and the profiles that result from choices."""

from __future__ import annotations

import pytest

from cnai.catalog import Catalog, Flavor, Image
from cnai.errors import CnaiError
from cnai_hub import profiles
from cnai_hub.pages import options as render
from cnai_hub.profiles import Choice, Offer, Option

TORCH = Image(name="torch", title="PyTorch", description="with JupyterLab")
JAX = Image(name="jax", title="JAX", default=True)
SMALL = Flavor(name="small", title="Small", cpu=1, memory_gib=2)
MEDIUM = Flavor(name="medium", title="Medium", cpu=2, memory_gib=6, default=True, price_per_hour=0.5)
LARGE = Flavor(name="large", title="Large", cpu=2, memory_gib=64)
GPUS = Flavor(name="gpus", title="GPUs", cpu=2, memory_gib=4, gpus=2, gpu_product="T4")
CATALOG = Catalog(images=(TORCH, JAX), flavors=(SMALL, MEDIUM, LARGE, GPUS))
LAPTOP = Flavor(name="this-machine", title="", cpu=2, memory_gib=15.6)
WORKSTATION = Flavor(name="this-machine", title="", cpu=32, memory_gib=128, gpus=2)


def test_a_laptop_is_offered_what_it_can_hold():
    assert profiles.offer(CATALOG, LAPTOP) == Offer(
        images=(
            Option("torch", "PyTorch", "with JupyterLab"),
            Option("jax", "JAX", "", chosen=True),
        ),
        flavors=(
            Option("small", "Small", "1 CPU, 2 GiB"),
            Option("medium", "Medium", "2 CPU, 6 GiB, 0.5 per hour", chosen=True),
            Option("large", "Large", "2 CPU, 64 GiB", refusal="this machine has 15.6 GiB of memory"),
            Option("gpus", "GPUs", "2 CPU, 4 GiB, 2 GPU (T4)", refusal="this machine has no GPU"),
        ),
    )


def test_a_workstation_is_offered_everything():
    assert [option.refusal for option in profiles.offer(CATALOG, WORKSTATION).flavors] == [""] * 4


@pytest.mark.parametrize(
    ("last", "image", "flavor"),
    [
        ({"image": "torch", "flavor": "small"}, "torch", "small"),
        ({"image": "torch"}, "torch", "medium"),
        ({"flavor": "gpus"}, "jax", "medium"),  # chosen on another machine
        ({"image": "gone", "flavor": "small"}, "jax", "medium"),
        ({"image": ["a", "b"]}, "jax", "medium"),
    ],
)
def test_the_last_choice_is_offered_again_while_it_holds(last, image, flavor):
    offer = profiles.offer(CATALOG, LAPTOP, Choice.last(last))
    assert [option.name for option in offer.images + offer.flavors if option.chosen] == [image, flavor]


def test_image_and_flavor_are_chosen_independently():
    assert profiles.choose(Choice(image="torch"), CATALOG, LAPTOP) == profiles.Profile(TORCH, MEDIUM)
    assert profiles.choose(Choice(flavor="small"), CATALOG, LAPTOP) == profiles.Profile(JAX, SMALL)
    assert profiles.choose(Choice(image="torch", flavor="gpus"), CATALOG, WORKSTATION) == profiles.Profile(TORCH, GPUS)
    assert profiles.choose(Choice(), CATALOG, LAPTOP) == profiles.Profile(JAX, MEDIUM)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"image": "evil"}, "unknown image 'evil' (allowed: jax, torch)"),
        ({"flavor": "smal"}, "unknown flavor 'smal'; did you mean 'small'? (allowed: gpus, large, medium, small)"),
        ({"cmd": "sh"}, "unknown option 'cmd'; allowed: image, flavor"),
        ({"image": ["torch", "jax"]}, "image must be the name of one image; given: ['torch', 'jax']"),
        ({"flavor": None}, "flavor must be the name of one flavor; given: None"),
        ({"flavor": {"a": 1}}, "flavor must be the name of one flavor; given: {'a': 1}"),
        (
            {"flavor": "gpus"},
            "flavor 'gpus' (2 CPU, 4 GiB, 2 GPU) can't be started here: this machine has no GPU; "
            "this machine holds: small, medium",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(options, sentence):
    with pytest.raises(CnaiError) as refusal:
        profiles.choose(Choice.of(options), CATALOG, LAPTOP)
    assert str(refusal.value) == sentence


def test_a_choice_is_what_jupyterhub_keeps_of_it():
    for choice in (Choice(), Choice(image="torch"), Choice(image="torch", flavor="small")):
        assert Choice.of(choice.options()) == Choice.last(choice.options()) == choice
    assert Choice().options() == {}
    assert Choice.last(None) == Choice()


@pytest.mark.parametrize(("reported_gib", "holds"), [(5.8, True), (5.3, False)])
def test_the_page_the_choice_and_the_list_have_one_rule(reported_gib, holds):
    machine = Flavor(name="this-machine", title="", cpu=2, memory_gib=reported_gib)
    shown = {option.name: option.refusal for option in profiles.offer(CATALOG, machine).flavors}
    assert shown["medium"] == ("" if holds else "this machine has 5.3 GiB of memory")
    assert (MEDIUM in CATALOG.that_fit(machine)) == holds
    assert (profiles.choose(Choice(), CATALOG, machine).flavor == MEDIUM) == holds
    if holds:
        assert profiles.choose(Choice(flavor="medium"), CATALOG, machine).flavor == MEDIUM


def test_without_a_default_that_fits_the_largest_is_chosen():
    tiny = Flavor(name="this-machine", title="", cpu=1, memory_gib=3)
    assert CATALOG.default_flavor(tiny) == SMALL


def test_a_machine_that_holds_nothing_says_so_and_still_has_a_page():
    nothing = Flavor(name="this-machine", title="", cpu=1, memory_gib=1)
    with pytest.raises(CnaiError, match=r"this machine \(1 CPU, 1.0 GiB\) holds no flavor"):
        profiles.choose(Choice(), CATALOG, nothing)
    assert not any(option.chosen for option in profiles.offer(CATALOG, nothing).flavors)


def test_the_form_and_the_api_end_in_the_same_options():
    assert profiles.from_form({"image": ["torch"], "flavor": ["small"], "_xsrf": ["x"]}) == {
        "image": "torch",
        "flavor": "small",
    }
    assert profiles.from_form({"image": ["a", "b"], "cmd": ["sh"]}) == {"image": ["a", "b"], "cmd": "sh"}


@pytest.mark.parametrize(
    ("flavor", "visible", "expected"),
    [
        (SMALL, None, {"CNAI_FLAVOR": "small", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}),
        (GPUS, None, {"CNAI_FLAVOR": "gpus", "CUDA_VISIBLE_DEVICES": "0,1", "OMP_NUM_THREADS": "2"}),
        (GPUS, "2,3,5", {"CNAI_FLAVOR": "gpus", "CUDA_VISIBLE_DEVICES": "2,3", "OMP_NUM_THREADS": "2"}),
        (
            Flavor(name="half", title="", cpu=0.5, memory_gib=1),
            None,
            {"CNAI_FLAVOR": "half", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        ),
    ],
)
def test_a_server_finds_its_limits_in_its_environment(flavor, visible, expected):
    assert profiles.environment(profiles.Profile(TORCH, flavor), visible) == {"CNAI_IMAGE": "torch", **expected}


def test_the_page_shows_the_offer_and_escapes_it():
    offer = Offer((Option("torch", "<b>Torch</b>", "", chosen=True),), (Option("gpu", "GPU", "", refusal="no GPU"),))
    page = render(offer)
    assert "&lt;b&gt;Torch&lt;/b&gt;" in page
    assert " ".join(page.split()).count('value="torch" checked>') == 1
    assert 'value="gpu" disabled>' in " ".join(page.split())
    assert "no GPU" in page
