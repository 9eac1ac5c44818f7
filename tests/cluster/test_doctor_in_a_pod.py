"""`cnai doctor` in a notebook's pod of a tenant, with a notebook's rights, on a real cluster."""

from __future__ import annotations

import secrets

import pytest
from realcluster import pod

pytest.importorskip("dask_kubernetes", reason="the extra `kubernetes` is not installed")

import workplace
from tenancy import until

LISTENS = "import http.server as h; h.ThreadingHTTPServer(('', {}), h.SimpleHTTPRequestHandler).serve_forever()"
NAMES = [
    "python", "torch", "private files", "store", "shared memory", "ports", "engine", "hub",
    "API server", "API rights", "resource definitions", "operator", "home", "quota", "image", "network policies",
]  # fmt: skip


@pytest.fixture(scope="module")
def proxy(cluster, images):
    """A namespace with two services, of which notebooks may reach only one."""
    namespace = f"cnai-test-{secrets.token_hex(4)}"
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    main = pod("proxy", images["notebook"], ["python", "-c", LISTENS.format(8000)])
    other = {**main["spec"]["containers"][0], "name": "api", "command": ["python", "-c", LISTENS.format(8001)]}
    main["spec"]["containers"].append(other)
    main["metadata"]["labels"] = {"component": "proxy"}
    cluster.create(main, namespace)
    for name, port in (("proxy-public", 8000), ("proxy-api", 8001)):
        spec = {"selector": {"component": "proxy"}, "ports": [{"port": port}]}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
        cluster.create(service, namespace)
    cluster.wait("pod/proxy", "condition=Ready", namespace)
    yield namespace
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture(scope="module")
def patient(cluster, images, proxy, tmp_path_factory):
    """A notebook's pod with the address of a hub, and with an operator."""
    hub = {"CNAI_HUB_URL": f"http://proxy-public.{proxy}:8000/"}
    folder = tmp_path_factory.mktemp("accounts")
    with workplace.notebook(cluster, images["notebook"], folder, hub) as found, found.operator():
        yield found


def test_all_is_well_but_nobody_enforces_policies(patient, proxy, own_cluster):
    code, said = patient.run("cnai", "doctor")
    lines = said.splitlines()
    assert [line[9:].partition(":")[0] for line in lines[: len(NAMES)]] == NAMES, said
    wrong = [line for line in lines[: len(NAMES)] if not line.startswith("ok")]
    assert len(wrong) == 1, said
    assert wrong[0].startswith(
        f"wrong    network policies: not enforced: the proxy's API (proxy-api.{proxy}:8001) can be reached"
    )
    assert code == 1
    until(lambda: patient.get("daskclusters") == [])


def test_the_magic_and_the_function_say_the_same(patient):
    command = "import cnai, IPython; s = IPython.InteractiveShell(); s.run_line_magic('load_ext', 'cnai'); "
    command += "print([c.name for c in s.run_line_magic('cnai', 'doctor')] == [c.name for c in cnai.doctor()])"
    assert patient.run("python", "-c", command)[1].splitlines()[-1] == "True"


def test_a_right_too_much_is_found(patient):
    spec = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    subject = {"kind": "ServiceAccount", "name": "notebook", "namespace": patient.namespace}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "generous"},
        "roleRef": spec,
        "subjects": [subject],
    }
    patient.cluster.create(binding, patient.namespace)
    try:
        until(lambda: "API rights: more than training needs: " in patient.run("cnai", "doctor")[1])
    finally:
        patient.cluster.kubectl("delete", "rolebinding", "generous", "-n", patient.namespace)


def test_a_claim_without_a_volume_is_found(patient):
    wanting = workplace.claim("wanting")
    wanting["spec"]["storageClassName"] = "none-such"
    patient.cluster.create(wanting, patient.namespace)
    said = patient.run("env", "CNAI_HOME_CLAIM=wanting", "cnai", "doctor")[1]
    assert "wrong    home: claim 'wanting' has no volume: no volume fits; ask your administrator for" in said
    patient.cluster.kubectl("delete", "pvc", "wanting", "-n", patient.namespace)


def test_without_an_operator_doctor_and_runs_say_whom_to_ask(cluster, images, tmp_path):
    with workplace.notebook(cluster, images["notebook"], tmp_path) as lonely:
        said = lonely.run("cnai", "doctor")[1]
        assert "wrong    operator: did not react to a Dask cluster" in said
        said = lonely.run("sh", "-c", "cd && touch nothing.py && cnai train nothing.py --flavor gpu")[1]
        assert "FAILED" in said
        assert (
            "no pods are created for Dask clusters here; ask your administrator whether the Dask operator runs" in said
        )
        assert lonely.get("daskclusters") == []
