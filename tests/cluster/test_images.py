"""The guarantees of an image hold for it and all images that inherit from it, in pods that pulled them by digest."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from realcluster import RESTRICTED, Cluster

from images import chain

KNOWN = chain.images()
INSTALLED = """
import json
from importlib.metadata import distributions
print(json.dumps([[found.metadata["Name"], found.version] for found in distributions()]))
"""
MARKERS = "import json; from pip._vendor.packaging.markers import default_environment as e; print(json.dumps(e()))"
# Files that build tools, or the machine that builds an image, would leave behind.
LEFT = "/var/lib/apt/lists /var/cache/apt /var/log /tmp /root /run/secrets /wheel /sbom.py /etc/pip.conf"


@dataclass(frozen=True)
class Inside:
    """A pod of an image, and commands run in it."""

    image: str
    reference: str
    cluster: Cluster
    namespace: str

    def run(self, *command: str) -> str:
        return self.cluster.kubectl("exec", "-n", self.namespace, self.image, "--", *command)

    def python(self, code: str) -> Any:
        """Return a program's output, parsed as JSON."""
        return json.loads(self.run("python", "-c", code))

    def finds(self, *programs: str) -> list[str]:
        """Return the paths of those programs that exist."""
        return self.run("sh", "-c", f"for name in {' '.join(programs)}; do command -v $name; done; true").split()


@pytest.fixture(scope="module")
def place(cluster):
    """A namespace under the restricted standard for the pods of all images."""
    name = f"cnai-test-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def inside(request, cluster, images, place):
    """A running pod of an image."""
    name = request.param
    cluster.create(manifest(name, images[name]), place)
    cluster.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=900s", "-n", place)
    yield Inside(name, images[name], cluster, place)
    cluster.kubectl("delete", "pod", name, "-n", place, "--wait=false")


def manifest(name: str, reference: str) -> dict[str, Any]:
    """A pod that the restricted standard admits, whose user is only set by the image."""
    main = {
        "name": "main",
        "image": reference,
        "args": ["sleep", "100000"],
        "securityContext": {key: value for key, value in RESTRICTED.items() if key != "runAsUser"},
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "3Gi"}},
    }
    spec = {"containers": [main], "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 5}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def promised_by(name: str) -> pytest.MarkDecorator:
    """Run a test for an image and for all images that inherit from it."""
    heirs = [heir for heir in KNOWN if KNOWN[name] in chain.lineage(heir, KNOWN)]
    return pytest.mark.parametrize("inside", heirs, indirect=True)


@promised_by("base")
def test_it_was_pulled_by_digest(inside):
    status = inside.cluster.get("pod", inside.image, "-n", inside.namespace)["status"]["containerStatuses"][0]
    assert re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", inside.reference)
    assert status["imageID"] == inside.reference


@promised_by("base")
def test_nobody_is_root(inside):
    assert inside.run("id").strip() == "uid=1000(cnai) gid=100(users) groups=100(users)"
    assert inside.run("sh", "-c", "find / -xdev -perm /6000 -type f 2>/dev/null; true") == ""
    for folder in ("/opt/cnai/bin", "/opt/cnai/lib/python3.11/site-packages", "/usr/local/bin", "/etc"):
        assert inside.run("sh", "-c", f"test -w {folder} && echo writable; true") == ""


@promised_by("base")
def test_tini_is_the_first_process(inside):
    assert inside.run("cat", "/proc/1/cmdline").split("\0")[:4] == ["tini", "-g", "--", "sleep"]


@promised_by("base")
def test_home_is_writable_and_empty(inside):
    said = inside.run("sh", "-c", "cd && pwd && ls && touch file && rm file && find . -name .cache")
    assert said == "/home/cnai\n"


@promised_by("base")
def test_it_holds_no_compiler_and_nothing_of_its_making(inside):
    assert inside.finds("sh", "python", "tini")[1:] == ["/opt/cnai/bin/python", "/usr/bin/tini"]
    assert inside.finds("cc", "gcc", "g++", "clang", "ld", "as", "make", "cargo", "uv") == []
    assert inside.run("sh", "-c", f"find {LEFT} -type f -o -name .cache 2>/dev/null; true") == ""
    variables = {line.partition("=")[0] for line in inside.run("env").splitlines()}
    assert {
        name for name in variables if re.match(r"(?i)(PIP|SSL|NODE|NPM|UV)_|.*PROXY|.*(CERT|CA_BUNDLE)", name)
    } == set()


@promised_by("base")
def test_packages_are_those_of_the_locks(inside):
    environment = inside.python(MARKERS)
    locks = {lock for ancestor in chain.lineage(inside.image, KNOWN) for lock in ancestor.locks}
    pinned = [entry for lock in locks for entry in _requirements((chain.ROOT / lock).read_text())]
    wanted = {
        canonicalize_name(one.name): _version(one)
        for one in pinned
        if not one.marker or one.marker.evaluate(environment)
    }
    installed = [(canonicalize_name(name), version) for name, version in inside.python(INSTALLED)]
    assert len(installed) == len(dict(installed))
    assert {name: version for name, version in installed if name != "cnai"} == wanted
    assert inside.run("pip", "check") == "No broken requirements found.\n"


@promised_by("base")
def test_its_bill_of_materials_names_all_it_holds(inside):
    bill = json.loads(inside.run("cat", "/usr/share/cnai/sbom.json"))
    named = {component["purl"] for component in bill["components"]}
    installed = inside.python(INSTALLED)
    python = {f"pkg:pypi/{canonicalize_name(name)}@{version}" for name, version in installed if name != "cnai"}
    assert {purl for purl in named if purl.startswith("pkg:pypi/")} == python
    debian = inside.run("dpkg-query", "--show", "--showformat=${Package}\\n").split()
    assert sorted(unquote(purl.split("/")[2].split("@")[0]) for purl in named if purl.startswith("pkg:deb/")) == sorted(
        debian
    )
    assert bill["metadata"]["component"]["name"] == "cnai"
    assert len(named) == len(bill["components"])


@promised_by("base")
def test_it_computes_and_asks_kubernetes(inside):
    inside.run("python", "-c", "import cnai, distributed, ipykernel, jupyter_server, jupyterhub.singleuser")
    assert inside.run("cnai", "--help").startswith("usage: cnai")


@promised_by("app")
def test_it_shows_notebooks(inside):
    inside.run("python", "-c", "import cnai_hub.apps.server.voila, matplotlib.pyplot, numpy, sklearn, voila")


@promised_by("notebook")
def test_it_trains_and_serves_jupyterlab(inside):
    code = "import json, torch; print(json.dumps([torch.ones(2).sum().item(), torch.distributed.is_gloo_available()]))"
    assert inside.python(code) == [2.0, True]
    assert inside.run("jupyterhub-singleuser", "--version")
    assert inside.run("jupyter", "lab", "--version")
    assert inside.finds("git", "less") == ["/usr/bin/git", "/usr/bin/less"]


@promised_by("notebook-gpu")
def test_it_is_for_gpus_and_shows_none_that_were_not_asked_for(inside):
    assert inside.python("import json, torch; print(json.dumps(bool(torch.version.cuda)))") is True
    assert inside.run("sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES $NVIDIA_DRIVER_CAPABILITIES").split() == [
        "void",
        "compute,utility",
    ]


@promised_by("hub")
def test_it_has_what_the_chart_and_the_operator_import(inside):
    inside.run("python", "-c", "import jupyterhub_idle_culler, kubernetes_asyncio, kubespawner, psycopg2, pycurl, yaml")
    inside.run(
        "python",
        "-c",
        "import cnai_hub.kubernetes.operator, cnai_hub.tenants, dask_kubernetes, kopf, oauthenticator.generic",
    )
    assert '"kind": "CustomResourceDefinition"' in inside.run("python", "-m", "cnai_hub.tenants")
    assert inside.run("jupyterhub", "--version").startswith("6.")
    assert inside.run("configurable-http-proxy", "--version").startswith("5.")
    bill = inside.run("cat", "/usr/share/cnai/sbom.json")
    asked = inside.run("node", "-p", "require('/opt/cnai/proxy/package.json').dependencies['configurable-http-proxy']")
    assert f"pkg:npm/configurable-http-proxy@{asked.strip()}" in bill


def _requirements(lock: str) -> list[Requirement]:
    return [Requirement(line.rstrip(" \\")) for line in lock.splitlines() if line[:1].isalnum()]


def _version(requirement: Requirement) -> str:
    (pin,) = requirement.specifier
    return pin.version
