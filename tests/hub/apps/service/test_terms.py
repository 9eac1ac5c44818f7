"""An app may use only images and flavors that its author may start, and no image of the author's own."""

from __future__ import annotations

import pytest

from cnai.catalog import Catalog, Flavor, Image
from cnai.errors import UsageError
from cnai_hub.apps.service.terms import Terms
from cnai_hub.apps.snapshot import Wanted

NOW, BEFORE = (f"registry.cnai.test/cnai/notebook@sha256:{digit * 64}" for digit in "ab")
CATALOG = Catalog(
    images=(
        Image(name="torch", title="", reference=NOW),
        Image(name="secret", title="", reference=NOW, groups=("research",)),
    ),
    flavors=(
        Flavor(name="small", title="", cpu=1, memory_gib=1),
        Flavor(name="gpu", title="", cpu=1, memory_gib=1, gpus=1, groups=("research",)),
    ),
)


def wanted(**changes):
    return Wanted(**{"slug": "a", "title": "A", "name": "a.ipynb", "image": "torch", "reference": NOW} | changes)


@pytest.mark.parametrize("flavor", ["", "small", "gpu"])
def test_what_its_author_may_start_an_app_may_have(flavor):
    Terms(CATALOG, in_pods=True).check(wanted(flavor=flavor), ["research"])
    Terms(CATALOG, in_pods=True).check(wanted(image="secret"), ["research"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"flavor": "gpu"}, r"unknown flavor 'gpu' \(allowed: small\)"),
        ({"flavor": "huge"}, r"unknown flavor 'huge' \(allowed: small\)"),
        ({"image": "secret"}, r"unknown image 'secret' \(allowed: torch\)"),
        ({"image": "", "reference": NOW}, "publish from a notebook server"),
        ({"reference": ""}, "publish from a notebook server"),
        ({"reference": BEFORE}, "is not image 'torch' of the catalog; stop the server, start it again"),
        ({"reference": "evil.example/miner"}, "evil.example/miner, which is not image 'torch'"),
    ],
)
def test_nobody_brings_more_or_an_image_of_their_own(changes, reason):
    with pytest.raises(UsageError, match=reason) as refused:
        Terms(CATALOG, in_pods=True).check(wanted(**changes), [])
    assert len(str(refused.value).splitlines()) == 1


def test_on_one_machine_there_are_no_images_but_flavors():
    Terms(CATALOG).check(wanted(image="", reference="", flavor="small"), [])
    with pytest.raises(UsageError, match="unknown flavor 'huge'"):
        Terms(CATALOG).check(wanted(flavor="huge"), [])


def test_a_trial_sees_no_gpu_that_the_app_wont_have():
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    pods, machine = Terms(CATALOG, in_pods=True), Terms(CATALOG)
    assert [pods.environment(wanted(flavor=name), ["research"]) for name in ("", "small", "gpu")] == [
        hidden,
        hidden,
        {},
    ]
    assert [machine.environment(wanted(flavor=name), ["research"]) for name in ("", "small")] == [{}, hidden]
