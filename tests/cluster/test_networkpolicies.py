"""Allowed connections under the policies of tenants: cyclonus, an independent program, evaluates them; nothing is sent.

Every line of the tables can fail: allowed connections need a policy, and without any policy nothing is forbidden.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from onenode.place import Place
from realcluster import pod

from cnai.labels import ROLE
from cnai_hub.tenants import Cluster, namespace, network

PLACE = Place.from_environment()
CYCLONUS = shutil.which("cyclonus") or shutil.which("cyclonus", path=str(PLACE.programs))
CLUSTER = Cluster(api_servers=("10.0.0.2/32",), reachable=("10.9.0.0/24",), private=("198.51.100.0/24",))
POLICIES = [*network.policies("cnai-ada", CLUSTER), *network.policies("cnai-bob", CLUSTER)]

SERVER = {"component": "singleuser-server"}
APP = {**SERVER, ROLE: "app"}
SCHEDULER = {"dask.org/cluster-name": "gpu-1a2b", "dask.org/component": "scheduler"}
NODE = {"dask.org/cluster-name": "gpu-1a2b", "dask.org/component": "worker"}
PODS = {
    "ada's notebook": ("cnai-ada", SERVER),
    "ada's app": ("cnai-ada", APP),
    "ada's odd app": ("cnai-ada", {ROLE: "app"}),
    "ada's scheduler": ("cnai-ada", SCHEDULER),
    "ada's node": ("cnai-ada", NODE),
    "bob's notebook": ("cnai-bob", SERVER),
    "bob's app": ("cnai-bob", APP),
    "bob's scheduler": ("cnai-bob", SCHEDULER),
    "bob's node": ("cnai-bob", NODE),
    "hub": ("cnai", {"component": "hub"}),
    "proxy": ("cnai", {"component": "proxy"}),
    "operator": ("cnai", {ROLE: "operator"}),
    "database": ("cnai", {"component": "database"}),
    "dns": ("kube-system", {"k8s-app": "kube-dns"}),
    "no dns": ("kube-system", {"k8s-app": "metrics-server"}),
    "stranger": ("default", {}),
    # A pod's own labels count only in its own namespace.
    "false hub": ("default", {"component": "hub"}),
    "false dns": ("default", {"k8s-app": "kube-dns"}),
    "false operator": ("cnai-bob", {ROLE: "operator"}),
}
ADDRESSES = {
    "internet": "203.0.113.7",
    "internet (6)": "2606:4700::7",
    "API server": "10.0.0.2",
    "object store": "10.9.0.5",
    "node": "10.0.0.5",
    "metadata": "169.254.169.254",
    "metadata (6)": "fd00:ec2::254",
    "node's DNS cache": "169.254.20.10",
    "office": "192.168.1.1",
    "carrier": "100.64.0.9",
    "looks public": "198.51.100.9",
}
ALLOWED = """
ada's notebook -> hub 8081
ada's notebook -> proxy 8000
ada's notebook -> ada's scheduler 8786
ada's notebook -> ada's node 40000
ada's notebook -> dns 53
ada's notebook -> dns 53/UDP
ada's notebook -> node's DNS cache 53/UDP
ada's notebook -> internet 443
ada's notebook -> internet (6) 443
ada's notebook -> API server 6443
ada's notebook -> object store 9000
ada's scheduler -> ada's node 40000
ada's scheduler -> ada's notebook 40000
ada's scheduler -> dns 53/UDP
ada's scheduler -> internet 443
ada's node -> ada's scheduler 8786
ada's node -> ada's node 29500
ada's node -> object store 9000
ada's app -> hub 8081
ada's app -> proxy 8000
ada's app -> dns 53/UDP
hub -> ada's notebook 8888
hub -> ada's app 8888
proxy -> ada's notebook 8888
proxy -> ada's app 8888
operator -> ada's scheduler 8787
operator -> bob's scheduler 8787
bob's notebook -> bob's scheduler 8786
"""
FORBIDDEN = """
ada's notebook -> bob's notebook 8888
ada's notebook -> bob's app 8888
ada's notebook -> bob's scheduler 8786
ada's notebook -> bob's scheduler 8787
ada's notebook -> bob's node 40000
ada's notebook -> ada's app 8888
ada's notebook -> hub 8080
ada's notebook -> hub 22
ada's notebook -> proxy 8001
ada's notebook -> operator 8080
ada's notebook -> database 5432
ada's notebook -> no dns 53
ada's notebook -> false dns 53
ada's notebook -> dns 9153
ada's notebook -> false hub 8081
ada's notebook -> stranger 80
ada's notebook -> API server 443
ada's notebook -> node 10250
ada's notebook -> node 22
ada's notebook -> metadata 80
ada's notebook -> metadata (6) 80
ada's notebook -> node's DNS cache 80
ada's notebook -> office 443
ada's notebook -> carrier 443
ada's notebook -> looks public 443
ada's scheduler -> bob's scheduler 8786
ada's scheduler -> hub 8081
ada's scheduler -> proxy 8000
ada's scheduler -> API server 6443
ada's scheduler -> metadata 80
ada's node -> bob's node 29500
ada's node -> hub 8081
ada's node -> database 5432
ada's node -> API server 6443
ada's node -> ada's app 8888
ada's node -> metadata 80
ada's app -> ada's notebook 8888
ada's app -> ada's scheduler 8786
ada's app -> ada's node 40000
ada's app -> bob's app 8888
ada's app -> database 5432
ada's app -> internet 443
ada's app -> object store 9000
ada's app -> API server 6443
ada's app -> metadata 80
ada's app -> node 10250
ada's odd app -> ada's notebook 8888
ada's odd app -> hub 8081
bob's notebook -> ada's odd app 8888
stranger -> ada's odd app 8888
hub -> ada's notebook 22
hub -> ada's scheduler 8786
hub -> ada's scheduler 8787
hub -> ada's node 40000
proxy -> ada's notebook 9999
proxy -> ada's scheduler 8787
operator -> ada's scheduler 8786
operator -> ada's notebook 8888
operator -> ada's node 40000
false operator -> ada's scheduler 8787
false hub -> ada's notebook 8888
database -> ada's notebook 8888
stranger -> ada's notebook 8888
stranger -> ada's app 8888
stranger -> ada's scheduler 8787
internet -> ada's notebook 8888
internet -> ada's app 8888
node -> ada's scheduler 8786
"""


def lines(table: str) -> list[str]:
    return table.strip().splitlines()


def evaluate(asked: list[str], policies: list[dict], folder) -> dict[str, bool]:
    """Return which of these connections the policies allow, according to cyclonus."""
    listed = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicyList", "items": policies}
    (folder / "policies.json").write_text(json.dumps(listed))
    (folder / "traffic.json").write_text(json.dumps([traffic(line) for line in asked]))
    paths = ("--policy-path", folder / "policies.json", "--traffic-path", folder / "traffic.json")
    command = [CYCLONUS, "analyze", "--mode", "query-traffic", *map(str, paths)]
    answer = subprocess.run(command, text=True, capture_output=True, check=True).stdout
    found = re.findall(r"IS ALLOWED\?\s*\|\s*(TRUE|FALSE)", answer)
    assert len(found) == len(asked), answer
    return {line: word == "TRUE" for line, word in zip(asked, found, strict=True)}


def traffic(line: str) -> dict:
    source, destination, port, protocol = re.fullmatch(r"(.+) -> (.+) (\d+)(?:/(UDP))?", line).groups()
    return {
        "Source": peer(source),
        "Destination": peer(destination),
        "ResolvedPort": int(port),
        "Protocol": protocol or "TCP",
    }


def peer(name: str) -> dict:
    if name in ADDRESSES:
        return {"IP": ADDRESSES[name]}
    where, labels = PODS[name]
    # A pod's own address is private, too, as on every cluster: no block of addresses may allow connections to it.
    address = f"10.244.0.{list(PODS).index(name) + 2}"
    of_namespace = {"kubernetes.io/metadata.name": where}
    if where in ("cnai-ada", "cnai-bob"):
        of_namespace |= namespace(where.removeprefix("cnai-"))["metadata"]["labels"]
    # For cyclonus, NotIn requires the key, but not for Kubernetes (see the test below); an empty value means the same.
    inside = {"Namespace": where, "NamespaceLabels": of_namespace, "PodLabels": {ROLE: "", **labels}}
    return {"Internal": inside, "IP": address}


@pytest.fixture(scope="module")
def evaluator():
    if CYCLONUS is None:
        pytest.skip("cyclonus is not built: `make cluster` builds it, and `python -m onenode build cyclonus` it alone")


@pytest.fixture(scope="module")
def answers(evaluator, tmp_path_factory):
    return evaluate(lines(ALLOWED + FORBIDDEN.strip()), POLICIES, tmp_path_factory.mktemp("cyclonus"))


@pytest.mark.parametrize("line", lines(ALLOWED))
def test_allowed(answers, line):
    assert answers[line]


@pytest.mark.parametrize("line", lines(FORBIDDEN))
def test_forbidden(answers, line):
    assert not answers[line]


@pytest.mark.parametrize("needless", sorted({each["metadata"]["name"] for each in POLICIES}))
def test_every_policy_is_needed(answers, tmp_path, needless):
    fewer = [each for each in POLICIES if each["metadata"]["name"] != needless]
    changed = evaluate(list(answers), fewer, tmp_path)
    assert [line for line in answers if changed[line] != answers[line]]


def test_without_policies_nothing_is_forbidden(evaluator, tmp_path):
    assert all(evaluate(lines(FORBIDDEN), [], tmp_path).values())


def test_a_pod_without_a_role_is_not_in_a_role(cluster, namespace):
    own = pod("own", cluster.base, ["true"])
    app = pod("app", cluster.base, ["true"])
    app["metadata"]["labels"] = {ROLE: "app"}
    for each in (own, app):
        cluster.create(each, namespace)
    selector = f"{ROLE} notin (app)"
    assert cluster.kubectl("get", "pods", "-n", namespace, "-l", selector, "-o", "name") == "pod/own\n"
