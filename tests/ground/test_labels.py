"""Names that Kubernetes knows: written once, and the same in what can't import them."""

from __future__ import annotations

import re

from cnai import labels
from literals import ROOT, literals

NAMES = {name: value for name, value in vars(labels).items() if name.isupper()}
DISTINCT = re.compile(r"(cnai\.dev|dask\.org|nvidia\.com)/[\w.-]+|kubernetes\.dask\.org")


def test_no_other_module_writes_such_a_name():
    found = {name for name, texts in literals().items() for text in texts if DISTINCT.search(text)}
    assert found == {"extensions/cnai/labels.py"}


def test_what_cannot_import_them_writes_the_same():
    known = set(NAMES.values())
    pages = [*ROOT.glob("helm-values*.yaml"), ROOT / "tests" / "cluster" / "onenode" / "place.py"]
    words = {found[0] for page in pages for found in DISTINCT.finditer(page.read_text())}
    assert words
    assert words <= known
    assert f"claimName: {labels.RELEASES}" in (ROOT / "helm-values.yaml").read_text()
    assert f"component: {labels.SERVER_COMPONENT}" in (ROOT / "helm-values.yaml").read_text()


def test_kubespawner_labels_servers_as_the_policies_expect():
    from kubespawner import KubeSpawner

    assert KubeSpawner.component_label.default_value == labels.SERVER_COMPONENT
