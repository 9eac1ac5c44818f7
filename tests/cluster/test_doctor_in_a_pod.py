"""`cnai doctor` where it matters: in a notebook's pod of a tenant, with a notebook's rights, on a real cluster."""

from __future__ import annotations

import secrets
import subprocess
from types import SimpleNamespace

import pytest
from realcluster import pod

pytest.importorskip("dask_kubernetes", reason="the extra `kubernetes` is not installed")

import tenancy
from tenancy import until

from cnai_hub import tenants

LISTENS = "import http.server as h; h.ThreadingHTTPServer(('', {}), h.SimpleHTTPRequestHandler).serve_forever()"
NAMES = [
    "python", "torch", "store", "shared memory", "ports", "engine", "hub",
    "API server", "API rights", "resource definitions", "operator", "home", "quota", "image", "network policies",
]  # fmt: skip


@pytest.fixture(scope="module")
def patient(cluster, images, tmp_path_factory):
    """A notebook's pod as the hub makes them, a proxy that it may reach, and an operator."""
    folder = tmp_path_factory.mktemp("accounts")
    image = images["notebook"]
    settings = tenants.Cluster(registries=(image.partition("/")[0], cluster.base.partition("/")[0]))
    with tenancy.installed(cluster, settings):
        hub = tenancy.account(cluster, folder, settings.hub_namespace, settings.hub_account)
        until(lambda: hub.kubectl("get", "pods", "-A"))
        with (
            tenancy.tenant(cluster, hub, f"pat-{secrets.token_hex(3)}", [], settings) as namespace,
            a_proxy(cluster, image) as proxy,
        ):
            operator = tenancy.account(cluster, folder, settings.hub_namespace, settings.operator_account)
            with tenancy.operator(operator.kubeconfig, folder / "operator.log", "--namespace", namespace):
                for manifest in (claim(), notebook(image, namespace, proxy)):
                    cluster.create(manifest, namespace)
                cluster.wait("pod/notebook", "condition=Ready", namespace)
                yield SimpleNamespace(cluster=cluster, namespace=namespace, proxy=proxy)


def claim():
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "home"}, "spec": spec}


def notebook(image, namespace, proxy):
    environment = {
        "HOME": "/home/cnai",
        "CNAI_BACKEND": "kubernetes",
        "CNAI_NAMESPACE": namespace,
        "CNAI_IMAGE": "notebook",
        "CNAI_IMAGE_REFERENCE": image,
        "CNAI_HOME_CLAIM": "home",
        "CNAI_HUB_URL": f"http://proxy-public.{proxy}:8000/",
    }
    made = pod(
        "notebook",
        image,
        ["sleep", "3600"],
        env=[{"name": name, "value": value} for name, value in environment.items()],
        resources={"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        volumeMounts=[{"name": "home", "mountPath": "/home/cnai"}, {"name": "shm", "mountPath": "/dev/shm"}],
    )
    made["metadata"]["labels"] = {"component": "singleuser-server"}
    shared = {"medium": "Memory", "sizeLimit": "512Mi"}
    made["spec"] |= {
        "serviceAccountName": "notebook",
        "automountServiceAccountToken": True,
        "securityContext": {"fsGroup": 100},
        "volumes": [
            {"name": "home", "persistentVolumeClaim": {"claimName": "home"}},
            {"name": "shm", "emptyDir": shared},
        ],
    }
    return made


class a_proxy:
    """Two services of a namespace that is not the tenant's: one that notebooks may reach, and one that they may not."""

    def __init__(self, cluster, image):
        self.cluster, self.image, self.namespace = cluster, image, f"cnai-test-{secrets.token_hex(4)}"

    def __enter__(self):
        self.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        main = pod("proxy", self.image, ["python", "-c", LISTENS.format(8000)])
        other = {**main["spec"]["containers"][0], "name": "api", "command": ["python", "-c", LISTENS.format(8001)]}
        main["spec"]["containers"].append(other)
        main["metadata"]["labels"] = {"component": "proxy"}
        self.cluster.create(main, self.namespace)
        for name, port in (("proxy-public", 8000), ("proxy-api", 8001)):
            spec = {"selector": {"component": "proxy"}, "ports": [{"port": port}]}
            service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
            self.cluster.create(service, self.namespace)
        self.cluster.wait("pod/proxy", "condition=Ready", self.namespace)
        return self.namespace

    def __exit__(self, *_):
        self.cluster.kubectl("delete", "namespace", self.namespace, "--wait=false")


def inside(patient, *command):
    """Run a command in the notebook's pod; return its exit code and what it printed."""
    words = [patient.cluster.kubectl_path, "exec", "-n", patient.namespace, "notebook", "--", *command]
    done = subprocess.run(words, text=True, capture_output=True)
    return done.returncode, done.stdout + done.stderr


def test_all_is_well_but_nobody_enforces_policies(patient, own_cluster):
    code, said = inside(patient, "cnai", "doctor")
    lines = said.splitlines()
    assert [line[9:].partition(":")[0] for line in lines[: len(NAMES)]] == NAMES, said
    wrong = [line for line in lines[: len(NAMES)] if not line.startswith("ok")]
    assert len(wrong) == 1, said
    assert wrong[0].startswith(
        f"wrong    network policies: not enforced: the proxy's API (proxy-api.{patient.proxy}:8001) can be reached"
    )
    assert code == 1
    until(lambda: patient.cluster.get("daskclusters", "-n", patient.namespace)["items"] == [])


def test_the_magic_and_the_function_say_the_same(patient):
    command = "import cnai, IPython; s = IPython.InteractiveShell(); s.run_line_magic('load_ext', 'cnai'); "
    command += "print([c.name for c in s.run_line_magic('cnai', 'doctor')] == [c.name for c in cnai.doctor()])"
    assert inside(patient, "python", "-c", command)[1].splitlines()[-1] == "True"


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
        until(lambda: "API rights: more than training needs: " in inside(patient, "cnai", "doctor")[1])
    finally:
        patient.cluster.kubectl("delete", "rolebinding", "generous", "-n", patient.namespace)


def test_a_claim_without_a_volume_is_found(patient):
    wanting = claim()
    wanting["metadata"]["name"] = "wanting"
    wanting["spec"]["storageClassName"] = "none-such"
    patient.cluster.create(wanting, patient.namespace)
    said = inside(patient, "env", "CNAI_HOME_CLAIM=wanting", "cnai", "doctor")[1]
    assert "wrong    home: claim 'wanting' has no volume: no volume fits; ask your administrator for" in said
    patient.cluster.kubectl("delete", "pvc", "wanting", "-n", patient.namespace)
