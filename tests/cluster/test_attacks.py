"""Attacks by tenants on the real API server: each is denied, and the same action succeeds where it is allowed."""

from __future__ import annotations

import copy
import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import httpx
import pytest
from realcluster import Refused, pod

pytest.importorskip("dask_kubernetes", reason="the extra `kubernetes` is not installed")

import tenancy
from tenancy import CATALOG, dask_cluster, until

from cnai_hub import tenants

SLEEP = ["sleep", "1000"]
FORBIDDEN = "Forbidden|forbidden"


@pytest.fixture(scope="module")
def house(cluster, tmp_path_factory):
    """Two tenants, `ada` with GPUs and `bob` without, and all accounts."""
    folder = tmp_path_factory.mktemp("accounts")
    with tenancy.installed(cluster, folder, machines=2, api_servers=("192.0.2.1/32",)) as installation:
        ada, bob, eve = (f"{name}-{installation.suffix}" for name in ("ada", "bob", "eve"))
        hub, settings = installation.hub, installation.settings
        with (
            tenancy.tenant(cluster, installation, ada, ["research"]) as of_ada,
            tenancy.tenant(cluster, installation, bob, []) as of_bob,
        ):
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"a": "b"}}
            cluster.create(secret, of_ada)
            cluster.create(secret, of_bob)
            notebook = tenancy.account(cluster, folder, of_ada, "notebook")
            until(lambda: notebook.kubectl("get", "daskclusters", "-n", of_ada))
            # Policies take effect a moment after they are applied.
            evil = pod("evil", "evil.example/miner", SLEEP)
            until(lambda: _is_refused(hub, evil, of_ada))
            yield SimpleNamespace(
                admin=cluster, hub=hub, operator=installation.operator, notebook=notebook, folder=folder,
                installation=installation, settings=settings, user=ada, ada=of_ada, bob=of_bob, eve=eve,
                image=cluster.base, hub_namespace=settings.hub_namespace,
            )  # fmt: skip


def _is_refused(account, manifest, namespace):
    try:
        account.create(manifest, namespace, "--dry-run=server")
    except Refused:
        return True
    return False


def test_the_api_server_understands_every_policy(house):
    def warnings():
        found = [
            house.admin.get("validatingadmissionpolicy", f"{each['metadata']['name']}-{house.installation.suffix}")
            for each in tenants.cluster_manifests(house.settings)
            if each["kind"] == "ValidatingAdmissionPolicy"
        ]
        if not all("typeChecking" in each.get("status", {}) for each in found):
            return False
        return [each["status"]["typeChecking"] for each in found]

    assert until(warnings) == [{}] * 4


def test_the_hub_makes_a_tenant_again_without_a_change(house):
    _, *inside = tenants.manifests(house.user, ["research"], CATALOG, house.settings)
    for manifest in inside:
        tenancy.apply(house.hub, manifest)
    found = house.hub.get("namespace", house.ada)
    assert tenants.refusal(found, house.user) == ""
    assert "belongs to" in tenants.refusal(found, "somebody")


def test_groups_that_change_change_the_quota(house):
    def gpus():
        quota = house.admin.get("resourcequota", "tenant", "-n", house.ada)
        return quota["spec"]["hard"]["requests.nvidia.com/gpu"]

    assert gpus() == "4"
    for groups, expected in (([], "0"), (["research"], "4")):
        (_, _, quota, *_) = tenants.manifests(house.user, groups, CATALOG, house.settings)
        tenancy.apply(house.hub, quota)
        assert gpus() == expected


# Requests that are refused with a notebook's token. {ada} is its own namespace.
NOTEBOOK_DENIED = [
    "get secret key -n {bob}",
    "get secrets -n {bob}",
    "get pods -n {bob}",
    "get daskclusters -n {bob}",
    "get secret key -n {ada}",
    "get secrets -A",
    "get pods -A",
    "get namespaces",
    "get nodes",
    "get secrets -n kube-system",
    "create rolebinding up --clusterrole=cluster-admin --serviceaccount={ada}:notebook -n {ada}",
    "create clusterrolebinding up --clusterrole=cluster-admin --serviceaccount={ada}:notebook",
    "create token hub -n {hub}",
    "create token notebook -n {bob}",
    "auth can-i --as=system:serviceaccount:{hub}:hub get pods",
    "label namespace {ada} pod-security.kubernetes.io/enforce=privileged --overwrite",
    "label namespace {bob} cnai.dev/tenant-",
    "delete resourcequota tenant -n {ada}",
    "delete networkpolicy default-deny -n {ada}",
    "delete rolebinding hub -n {ada}",
    "create deployment x --image=x -n {ada}",
    "create service clusterip x --tcp=80 -n {ada}",
    "create configmap x -n {ada}",
    "delete validatingadmissionpolicybinding cnai-pods-{suffix}",
]


def _filled(house, words):
    suffix = house.installation.suffix
    return words.format(ada=house.ada, bob=house.bob, hub=house.hub_namespace, suffix=suffix).split()


@pytest.mark.parametrize("words", NOTEBOOK_DENIED)
def test_a_notebook_may_not(house, words):
    words = _filled(house, words)
    with pytest.raises(Refused, match=FORBIDDEN):
        house.notebook.kubectl(*words)
    # Control: the same command is valid, because the administrator may run it.
    changes = words[0] in ("create", "label", "delete") and words[1] != "token"
    house.admin.kubectl(*words, *(["--dry-run=server"] if changes else []))


@pytest.mark.parametrize("kind", ["nodeport", "loadbalancer"])
def test_nobody_opens_a_tenant_to_the_outside(house, kind):
    words = ("--tcp=80", "-n", house.ada, "--dry-run=server")
    with pytest.raises(Refused, match="exceeded quota: tenant"):
        house.admin.kubectl("create", "service", kind, "x", *words)
    house.admin.kubectl("create", "service", "clusterip", "x", *words)


def test_a_notebook_makes_no_pods(house):
    plain = pod("x", house.image, SLEEP)
    for namespace in (house.ada, house.bob, "default"):
        with pytest.raises(Refused, match=FORBIDDEN):
            house.notebook.create(plain, namespace, "--dry-run=server")
    house.hub.create(plain, house.ada, "--dry-run=server")


def test_a_notebook_sees_and_starts_what_is_its_own(house):
    for kind in ("pods", "services", "events", "resourcequotas", "deployments", "daskclusters", "daskworkergroups"):
        house.notebook.kubectl("get", kind, "-n", house.ada)
    house.notebook.create(dask_cluster("mine", house.image), house.ada, "--dry-run=server")
    with pytest.raises(Refused, match=FORBIDDEN):
        house.notebook.create(dask_cluster("theirs", house.image), house.bob, "--dry-run=server")


@pytest.mark.parametrize("kind", ["DaskJob", "DaskAutoscaler", "DaskWorkerGroup"])
def test_a_notebook_makes_no_other_kind_of_dask(house, kind):
    body = dask_cluster("x", house.image)["spec"]
    spec = {
        "DaskJob": {"job": {"spec": body["worker"]["spec"]}, "cluster": {"spec": body}},
        "DaskAutoscaler": {"cluster": "x", "minimum": 1, "maximum": 2},
        "DaskWorkerGroup": {"cluster": "x", "worker": body["worker"]},
    }[kind]
    manifest = {"apiVersion": "kubernetes.dask.org/v1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}
    with pytest.raises(Refused, match=FORBIDDEN):
        house.notebook.create(manifest, house.ada, "--dry-run=server")
    house.admin.create(manifest, house.ada, "--dry-run=server")


def _edited(manifest, change):
    edited = copy.deepcopy(manifest)
    change(edited)
    return edited


def _spec(**fields):
    return lambda manifest: manifest["spec"].update(fields)


def _container(**fields):
    return lambda manifest: manifest["spec"]["containers"][0].update(fields)


POD_DENIED = {
    "host path": (_spec(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), "violates PodSecurity"),
    "privileged": (_container(securityContext={"privileged": True}), "violates PodSecurity"),
    "host network": (_spec(hostNetwork=True), "violates PodSecurity"),
    "root": (_container(securityContext={"runAsUser": 0}), "violates PodSecurity"),
    "system's priority": (_spec(priorityClassName="system-node-critical"), "may not use priority classes"),
    "a node by name": (_spec(nodeName="cnai-node"), "bypasses the scheduler"),
    "any taint": (_spec(tolerations=[{"operator": "Exists"}]), "tolerations must name a key"),
    "control plane": (
        _spec(tolerations=[{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]),
        "tolerations must name a key",
    ),
    "foreign image": (_container(image="evil.example/miner"), "images must come from"),
    "foreign init container": (
        lambda pod: pod["spec"].update(initContainers=[{**pod["spec"]["containers"][0], "name": "i", "image": "evil"}]),
        "images must come from",
    ),
    "part of a GPU": (
        _container(resources={"limits": {"memory": "1Mi", "nvidia.com/mig-1g.10gb": "1"}}),
        "containers may request only cpu",
    ),
    "GPUs unasked": (_container(env=[{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]), "may only be void"),
    "GPUs unasked, indirectly": (
        _container(
            env=[
                {
                    "name": "NVIDIA_VISIBLE_DEVICES",
                    "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['x']"}},
                }
            ]
        ),
        "may only be void",
    ),
    "too many GPUs": (
        _container(resources={"limits": {"cpu": "1", "memory": "1Mi", "nvidia.com/gpu": "5"}}),
        "exceeded quota: tenant, requested: requests.nvidia.com/gpu=5, used: .*, limited: requests.nvidia.com/gpu=4",
    ),
    "too much memory": (_container(resources={"limits": {"memory": "1Ti"}}), "exceeded quota"),
}


@pytest.mark.parametrize("attack", POD_DENIED)
def test_a_pod_is_refused(house, attack):
    change, sentence = POD_DENIED[attack]
    plain = pod(f"p{secrets.token_hex(3)}", house.image, SLEEP)
    # The hub sends the requests, because it may create pods there; a tenant has no right to.
    with pytest.raises(Refused, match=sentence):
        house.hub.create(_edited(plain, change), house.ada, "--dry-run=server")
    house.hub.create(plain, house.ada, "--dry-run=server")


@pytest.mark.parametrize("gpus", [1, 4])
def test_gpus_within_the_quota_are_admitted(house, gpus):
    resources = {"limits": {"cpu": "1", "memory": "1Mi", "nvidia.com/gpu": str(gpus)}}
    manifest = pod("gpus", house.image, SLEEP, resources=resources)
    house.hub.create(manifest, house.ada, "--dry-run=server")
    with pytest.raises(Refused, match=r"limited: requests\.nvidia\.com/gpu=0"):
        house.hub.create(manifest, house.bob, "--dry-run=server")


def _scheduler(**fields):
    return lambda manifest: manifest["spec"]["scheduler"]["spec"].update(fields)


def _worker(**fields):
    return lambda manifest: manifest["spec"]["worker"]["spec"].update(fields)


def _without_env(part, gpus=None):
    def change(manifest):
        (main,) = manifest["spec"][part]["spec"]["containers"]
        del main["env"]
        main["resources"]["limits"].update({"nvidia.com/gpu": gpus} if gpus else {})

    return change


def _service(**fields):
    return lambda manifest: manifest["spec"]["scheduler"]["service"].update(fields)


def _idle(seconds):
    return lambda manifest: manifest["spec"].update(idleTimeout=seconds)


DASK_DENIED = {
    "load balancer": (_service(type="LoadBalancer"), "must be of type ClusterIP"),
    "another's address": (_service(externalIPs=["192.0.2.7"]), "must be of type ClusterIP"),
    "another's name": (_service(externalName="hub.cnai"), "must be of type ClusterIP"),
    "scheduler with a token": (_scheduler(automountServiceAccountToken=True), "automountServiceAccountToken"),
    "worker with a token": (_worker(automountServiceAccountToken=True), "automountServiceAccountToken"),
    "another account": (_worker(serviceAccountName="notebook"), "must use the service account default"),
    "looks like a server": (
        lambda manifest: manifest["spec"]["worker"].update(metadata={"labels": {"component": "singleuser-server"}}),
        "may not set the labels component",
    ),
    "looks like the operator": (
        lambda manifest: manifest["metadata"].update(labels={"cnai.dev/role": "operator"}),
        "may not set the labels component",
    ),
    "foreign image": (
        lambda manifest: manifest["spec"]["worker"]["spec"]["containers"][0].update(image="evil.example/miner"),
        "images must come from",
    ),
    "system's priority": (_worker(priorityClassName="system-cluster-critical"), "may not use priority classes"),
    "a node by name": (_scheduler(nodeName="cnai-node"), "bypasses the scheduler"),
    "GPUs of its image": (_without_env("scheduler"), "must set NVIDIA_VISIBLE_DEVICES to void"),
    "none and those of its image": (_without_env("worker", gpus="0"), "must set NVIDIA_VISIBLE_DEVICES to void"),
    "more workers than pods": (
        lambda manifest: manifest["spec"]["worker"].update(replicas=64, spec=manifest["spec"]["scheduler"]["spec"]),
        "fewer than 64 workers",
    ),
    "idle for a day": (_idle(86400), "idleTimeout must be 0 to 3600 seconds"),
    "idle for less than nothing": (_idle(-1), "idleTimeout must be 0 to 3600 seconds"),
}


@pytest.mark.parametrize("attack", DASK_DENIED)
def test_a_dask_cluster_is_refused(house, attack):
    change, sentence = DASK_DENIED[attack]
    plain = _edited(dask_cluster("x", house.image, workers=2, gpus=2), _idle(3600))
    with pytest.raises(Refused, match=sentence):
        house.notebook.create(_edited(plain, change), house.ada, "--dry-run=server")
    house.notebook.create(plain, house.ada, "--dry-run=server")


def test_a_dask_cluster_with_too_many_gpus_is_refused_whole(house):
    with pytest.raises(Refused, match="the cluster asks for 6 GPUs; the quota is 4"):
        house.notebook.create(dask_cluster("x", house.image, workers=3, gpus=2), house.ada, "--dry-run=server")
    with pytest.raises(Refused, match="the cluster asks for 5 GPUs; the quota is 4"):
        house.notebook.create(dask_cluster("x", house.image, workers=1, gpus=5), house.ada, "--dry-run=server")
    house.notebook.create(dask_cluster("x", house.image, workers=2, gpus=2), house.ada, "--dry-run=server")


def _binding(role, *subject):
    kind, name, namespace = subject
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"x{secrets.token_hex(3)}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": kind, "name": name, "namespace": namespace}],
    }


def test_the_hub_gives_only_its_two_roles_and_only_to_whom_they_are_meant_for(house):
    hub = ("ServiceAccount", "hub", house.hub_namespace)
    own = ("ServiceAccount", "notebook", house.ada)
    with pytest.raises(Refused, match="attempting to grant RBAC permissions not currently held"):
        house.hub.create(_binding("cluster-admin", *hub), house.ada, "--dry-run=server")
    for role, subject in (
        ("cnai-hub-tenant", own),
        ("cnai-tenant", hub),
        ("cnai-tenant", ("ServiceAccount", "notebook", house.bob)),
    ):
        with pytest.raises(Refused, match="the hub may bind only its own role to itself"):
            house.hub.create(_binding(role, *subject), house.ada, "--dry-run=server")
    with pytest.raises(Refused, match="may work only in tenants' namespaces"):
        house.hub.create(_binding("cnai-hub-tenant", *hub), "kube-system", "--dry-run=server")
    house.hub.create(_binding("cnai-hub-tenant", *hub), house.ada, "--dry-run=server")
    house.hub.create(_binding("cnai-tenant", *own), house.ada, "--dry-run=server")


@pytest.mark.parametrize(
    "words",
    [
        "get secrets -n kube-system",
        "get secret key -n {ada}",
        "get configmaps -n kube-system",
        "create token notebook -n {ada}",
        "create clusterrolebinding up --clusterrole=cluster-admin --serviceaccount={hub}:hub",
        "delete namespace {bob}",
        "label namespace kube-system cnai.dev/tenant=x",
        "run x --image=x -n kube-system",
        "delete clusterrole cnai-hub",
        "delete validatingadmissionpolicybinding cnai-fence-{suffix}",
        "create --raw /api/v1/namespaces/{ada}/pods/x/exec?command=true -f /dev/null",
    ],
)
def test_the_hub_may_not(house, words):
    words = _filled(house, words)
    with pytest.raises(Refused, match=FORBIDDEN):
        house.hub.kubectl(*words)


def test_the_hub_makes_only_labeled_restricted_namespaces(house):
    good = tenants.namespace(f"eve-{secrets.token_hex(3)}")
    house.hub.create(good, None, "--dry-run=server")
    for change in (
        lambda namespace: namespace["metadata"].pop("labels"),
        lambda namespace: namespace["metadata"].pop("annotations"),
        lambda namespace: namespace["metadata"].update(name="kube-eve"),
        lambda namespace: namespace["metadata"]["labels"].pop("cnai.dev/tenant"),
        lambda namespace: namespace["metadata"]["labels"].update({"pod-security.kubernetes.io/enforce": "privileged"}),
    ):
        with pytest.raises(Refused, match="the hub may create only namespaces cnai-"):
            house.hub.create(_edited(good, change), None, "--dry-run=server")


def test_the_operator_stays_in_tenants_namespaces(house):
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "x"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod("x", house.image, SLEEP)["spec"]},
        },
    }
    deployment["spec"]["template"]["spec"]["restartPolicy"] = "Always"
    house.operator.create(deployment, house.ada, "--dry-run=server")
    for namespace in ("kube-system", "default", house.hub_namespace):
        with pytest.raises(Refused, match="may work only in tenants' namespaces"):
            house.operator.create(deployment, namespace, "--dry-run=server")
    for words in (
        f"get secrets -n {house.ada}",
        f"create token notebook -n {house.ada}",
        f"run x --image=x -n {house.ada}",
    ):
        with pytest.raises(Refused, match=FORBIDDEN):
            house.operator.kubectl(*words.split())


@pytest.fixture(scope="module")
def running_operator(house):
    log = house.folder / "operator.log"
    ours = [f"--namespace={name}" for name in (house.ada, house.bob, tenants.namespace_name(house.eve))]
    with tenancy.operator(house.operator.kubeconfig, log, *ours) as process:
        yield SimpleNamespace(log=log, process=process)
        assert process.poll() is None, log.read_text()
    refused = [line for line in log.read_text().splitlines() if "is forbidden" in line]
    assert not [line for line in refused if "exceeded quota" not in line]


def _workers(house, namespace, name):
    found = house.admin.get("deployments", "-n", namespace, "-l", f"dask.org/workergroup-name={name}-default")
    return [each["metadata"]["name"] for each in found["items"]]


def _events(house, namespace, words):
    return lambda: any(words in event["message"] for event in house.admin.get("events", "-n", namespace)["items"])


def test_a_dask_cluster_starts_scales_and_ends_with_the_least_rights(house, running_operator):
    house.notebook.create(dask_cluster("good", house.image, workers=2), house.ada)
    until(lambda: len(_workers(house, house.ada, "good")) == 2)
    for component in ("scheduler", "worker"):
        until(lambda component=component: _running(house, "good", component))
    scale = ("scale", "daskworkergroup/good-default", "-n", house.ada)
    house.notebook.kubectl(*scale, "--replicas=3")
    until(lambda: len(_workers(house, house.ada, "good")) == 3)
    # The scheduler doesn't answer, so the operator stops the newest workers.
    before = _workers(house, house.ada, "good")
    house.notebook.kubectl(*scale, "--replicas=1")
    until(lambda: len(_workers(house, house.ada, "good")) == 1)
    assert set(_workers(house, house.ada, "good")) < set(before)
    house.notebook.kubectl("delete", "daskcluster", "good", "-n", house.ada)
    until(lambda: not house.admin.get("deployments,services,pods", "-n", house.ada)["items"])


def _running(house, name, component):
    labels = f"dask.org/cluster-name={name},dask.org/component={component}"
    pods = house.admin.get("pods", "-n", house.ada, "-l", labels)["items"]
    return bool(pods) and all(each["status"]["phase"] == "Running" for each in pods)


def test_what_a_dask_cluster_asks_for_is_refused_of_its_pods(house, running_operator):
    hostile = dask_cluster("hostile", house.image)
    hostile["spec"]["worker"]["spec"]["volumes"] = [{"name": "root", "hostPath": {"path": "/"}}]
    house.notebook.create(hostile, house.ada)
    until(_events(house, house.ada, 'uses restricted volume type "hostPath"'))
    labels = "dask.org/cluster-name=hostile,dask.org/component=worker"
    assert not house.admin.get("pods", "-n", house.ada, "-l", labels)["items"]
    until(lambda: _running(house, "hostile", "scheduler"))
    house.notebook.kubectl("delete", "daskcluster", "hostile", "-n", house.ada)


def test_scaling_up_gets_no_more_gpus_than_the_quota(house, running_operator):
    house.notebook.create(dask_cluster("greedy", house.image, workers=2, gpus=2), house.ada)
    until(lambda: len(_workers(house, house.ada, "greedy")) == 2)
    house.notebook.kubectl("scale", "daskworkergroup/greedy-default", "-n", house.ada, "--replicas=3")
    until(lambda: len(_workers(house, house.ada, "greedy")) == 3)
    until(_events(house, house.ada, "exceeded quota: tenant, requested: requests.nvidia.com/gpu=2"))
    used = house.admin.get("resourcequota", "tenant", "-n", house.ada)["status"]["used"]
    assert used["requests.nvidia.com/gpu"] == "4"
    house.notebook.kubectl("delete", "daskcluster", "greedy", "-n", house.ada)


def test_scaling_up_makes_no_more_deployments_than_the_quota(house, running_operator):
    house.notebook.create(dask_cluster("many", house.image), house.ada)
    until(lambda: len(_workers(house, house.ada, "many")) == 1)
    deployments = "count/deployments.apps"
    quota = ("resourcequota", "tenant", "-n", house.ada)
    assert house.admin.get(*quota)["spec"]["hard"][deployments] == "64"
    # The scheduler and a worker are two deployments; the quota allows a third, but no fourth.
    most = json.dumps({"spec": {"hard": {deployments: "3"}}})
    house.admin.kubectl("patch", *quota, "--type=merge", "-p", most)
    until(lambda: house.admin.get(*quota)["status"]["hard"][deployments] == "3")
    house.notebook.kubectl("scale", "daskworkergroup/many-default", "-n", house.ada, "--replicas=1000")
    until(lambda: house.admin.get(*quota)["status"]["used"][deployments] == "3")
    assert len(_workers(house, house.ada, "many")) == 2
    house.notebook.kubectl("delete", "daskcluster", "many", "-n", house.ada)
    until(lambda: not house.admin.get("deployments,daskworkergroups", "-n", house.ada)["items"])
    (_, _, whole, *_) = tenants.manifests(house.user, ["research"], CATALOG, house.settings)
    tenancy.apply(house.hub, whole)


def test_a_tenant_is_removed_with_a_dask_cluster_that_runs(house, running_operator):
    with tenancy.tenant(house.admin, house.installation, house.eve, ["research"]) as eve:
        until(lambda: house.admin.get("resourcequota", "tenant", "-n", eve)["status"]["hard"])
        until(lambda: house.admin.create(dask_cluster("left", house.image, gpus=1), eve))
        until(lambda: len(_workers(house, eve, "left")) == 1)
        less = json.dumps({"spec": {"hard": {"requests.nvidia.com/gpu": "0"}}})
        house.admin.kubectl("patch", "resourcequota", "tenant", "-n", eve, "--type=merge", "-p", less)
        until(lambda: _is_refused(house.admin, dask_cluster("more", house.image, gpus=1), eve))
        house.admin.kubectl("annotate", "daskcluster", "left", "-n", eve, "noted=by-the-operator")
    tenancy.wait_until_gone(house.admin)
    with pytest.raises(Refused, match="NotFound"):
        house.admin.kubectl("get", "namespace", eve)


class _Rogue(ThreadingHTTPServer):
    """A scheduler that gives prepared answers, and records the requests."""

    def __init__(self):
        self.asked: list[str] = []
        self.connections = 0
        self.answer: tuple[int, dict[str, str], object] = (404, {}, {})
        super().__init__(("0.0.0.0", 0), _Answers)

    def verify_request(self, request, client_address):
        self.connections += 1
        return True


class _Answers(BaseHTTPRequestHandler):
    def do_POST(self):
        status, headers, body = self.server.answer
        self.server.asked.append(self.path)
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    do_GET = do_POST

    def log_message(self, *_):
        pass


@pytest.fixture
def rogue(own_cluster, house, running_operator):
    """A tenant's scheduler as a process of this machine, behind the Service that the operator creates."""
    server = _Rogue()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    manifest = dask_cluster("rogue", house.image, workers=3)
    service = manifest["spec"]["scheduler"]["service"]
    del service["selector"]
    house.notebook.create(manifest, house.ada)
    until(lambda: len(_workers(house, house.ada, "rogue")) == 3)
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "rogue", "labels": {"kubernetes.io/service-name": "rogue-scheduler"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [_node_address(own_cluster)], "conditions": {"ready": True}}],
        "ports": [{"name": each["name"], "port": port, "protocol": "TCP"} for each in service["ports"]],
    }
    house.admin.create(slice_, house.ada)
    address = house.admin.get("service", "rogue-scheduler", "-n", house.ada)["spec"]["clusterIP"]
    until(lambda: _is_reached(f"http://{address}:8787"))
    server.asked.clear()
    server.connections = 0
    yield server
    house.notebook.kubectl("delete", "daskcluster", "rogue", "-n", house.ada)
    house.admin.kubectl("delete", "endpointslice", "rogue", "-n", house.ada)
    server.shutdown()
    server.server_close()


def _is_reached(url):
    """Tell whether kube-proxy already has the route."""
    try:
        httpx.get(url, timeout=5, trust_env=False)
    except httpx.HTTPError:
        return False
    return True


def _node_address(cluster):
    addresses = cluster.get("nodes")["items"][0]["status"]["addresses"]
    return next(each["address"] for each in addresses if each["type"] == "InternalIP")


def _scale(house, replicas):
    words = ("scale", "daskworkergroup/rogue-default", "-n", house.ada, f"--replicas={replicas}")
    house.notebook.kubectl(*words)
    until(lambda: len(_workers(house, house.ada, "rogue")) == replicas)


def test_a_rogue_scheduler_can_not_use_the_operator(house, rogue):
    victim = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "victim"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod("x", house.image, SLEEP)["spec"]},
        },
    }
    victim["spec"]["template"]["spec"]["restartPolicy"] = "Always"
    house.admin.create(victim, house.bob)
    # The scheduler answers with the path of another tenant's object instead of a worker's name.
    path = f"../../../namespaces/{house.bob}/deployments/victim"
    rogue.answer = (200, {}, {"tcp://a": {"name": path}, "tcp://b": {"name": "rogue-scheduler"}})
    _scale(house, 2)
    assert rogue.asked == ["/api/v1/retire_workers"]
    assert [each["metadata"]["name"] for each in house.admin.get("deployments", "-n", house.bob)["items"]] == ["victim"]
    house.admin.kubectl("get", "deployment", "rogue-scheduler", "-n", house.ada)
    # The scheduler redirects the operator to another address.
    rogue.answer = (307, {"Location": f"http://127.0.0.1:{rogue.server_address[1]}/stolen"}, {})
    _scale(house, 1)
    assert rogue.asked == ["/api/v1/retire_workers"] * 2
    # Without an answer, the operator tries only the JSON API; Dask's RPC would be another connection to this process.
    _scale(house, 2)
    rogue.answer = (404, {}, {})
    _scale(house, 1)
    assert rogue.asked == ["/api/v1/retire_workers"] * 3
    assert rogue.connections == 3
    # Control: the operator follows a valid answer, so it really asks this scheduler.
    _scale(house, 3)
    (first, *_) = _workers(house, house.ada, "rogue")
    rogue.answer = (200, {}, {"tcp://a": {"name": first}})
    _scale(house, 2)
    assert first not in _workers(house, house.ada, "rogue")
