"""The manifests of a tenant, compared whole; the laws of names, and of the workers that the operator stops."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnai.catalog import Catalog, Flavor, Image
from cnai_hub import tenants
from cnai_hub.kubernetes import operator
from cnai_hub.tenants import Cluster, access, limits, names, network
from cnai_hub.tenants import operator as tenant_operator

SMALL = Flavor(name="small", title="", cpu=0.5, memory_gib=2)
LARGE = Flavor(name="large", title="", cpu=8, memory_gib=24)
H100 = Flavor(name="gpu-h100", title="", cpu=4, memory_gib=64, gpus=2, groups=("research", "staff"))
CATALOG = Catalog(images=(Image(name="torch", title=""),), flavors=(SMALL, LARGE, H100))
CLUSTER = Cluster(api_servers=("192.0.2.1/32",))
HUB = {"kind": "ServiceAccount", "name": "hub", "namespace": "cnai"}


def test_a_namespace():
    assert tenants.namespace("ada") == {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": "cnai-ada",
            "labels": {
                "cnai.dev/tenant": "ada",
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/enforce-version": "latest",
                "pod-security.kubernetes.io/warn": "restricted",
                "pod-security.kubernetes.io/warn-version": "latest",
            },
            "annotations": {"cnai.dev/user": "ada"},
        },
    }


def test_the_order_of_a_tenant():
    made = tenants.manifests("ada", ["research"], CATALOG, CLUSTER)
    assert [(each["kind"], each["metadata"]["name"]) for each in made] == [
        ("Namespace", "cnai-ada"),
        ("RoleBinding", "hub"),
        ("ResourceQuota", "tenant"),
        ("LimitRange", "defaults"),
        ("NetworkPolicy", "default-deny"),
        ("NetworkPolicy", "own-pods"),
        ("NetworkPolicy", "dns"),
        ("NetworkPolicy", "hub"),
        ("NetworkPolicy", "operator"),
        ("NetworkPolicy", "internet"),
        ("NetworkPolicy", "api-server"),
        ("ServiceAccount", "notebook"),
        ("ServiceAccount", "default"),
        ("RoleBinding", "notebook"),
    ]
    assert {each["metadata"].get("namespace") for each in made[1:]} == {"cnai-ada"}


@pytest.mark.parametrize(
    ("groups", "cpu", "memory", "gpus"),
    [
        ((), "43", "132Gi", "0"),
        (("guests",), "43", "132Gi", "0"),
        (("research",), "43", "332Gi", "10"),
        (("staff", "guests"), "43", "332Gi", "10"),
    ],
)
def test_a_quota_follows_the_groups(groups, cpu, memory, gpus):
    assert limits.quota("cnai-ada", groups, CATALOG, CLUSTER) == {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "tenant", "namespace": "cnai-ada"},
        "spec": {
            "hard": {
                "requests.cpu": cpu,
                "limits.memory": memory,
                "requests.nvidia.com/gpu": gpus,
                "pods": "64",
                "persistentvolumeclaims": "10",
                "requests.storage": "500Gi",
                "services.loadbalancers": "0",
                "services.nodeports": "0",
                "count/resourceclaims.resource.k8s.io": "0",
                "count/daskclusters.kubernetes.dask.org": "3",
                "count/deployments.apps": "64",
            }
        },
    }


def test_who_may_start_nothing_has_a_quota_of_nothing():
    gated = Catalog(images=CATALOG.images, flavors=(H100,))
    hard = limits.quota("cnai-eve", (), gated, CLUSTER)["spec"]["hard"]
    assert (hard["requests.cpu"], hard["requests.nvidia.com/gpu"]) == ("3", "0")


def test_default_limits():
    assert limits.defaults("cnai-ada")["spec"] == {
        "limits": [
            {"type": "Container", "default": {"memory": "1Gi"}, "defaultRequest": {"cpu": "100m", "memory": "256Mi"}}
        ]
    }


def test_the_network():
    own = {"matchExpressions": [{"key": "cnai.dev/role", "operator": "NotIn", "values": ["app"]}]}
    servers = {"matchLabels": {"component": "singleuser-server"}}

    def of_hub(key, value):
        return {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "cnai"}},
            "podSelector": {"matchLabels": {key: value}},
        }

    hub, proxy = of_hub("component", "hub"), of_hub("component", "proxy")
    dns = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    four = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "198.18.0.0/15"]
    cluster = Cluster(
        api_servers=("192.0.2.1/32",), private=("198.18.0.0/15", "2001:db8::/32"), reachable=("10.9.0.0/24",)
    )
    made = network.policies("cnai-ada", cluster)
    assert {each["metadata"]["namespace"] for each in made} == {"cnai-ada"}
    assert {each["metadata"]["name"]: each["spec"] for each in made} == {
        "default-deny": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        "own-pods": {
            "podSelector": own,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": own}]}],
            "egress": [{"to": [{"podSelector": own}]}],
        },
        "dns": {
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [
                {
                    "to": [dns, {"ipBlock": {"cidr": "169.254.20.10/32"}}],
                    "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
                }
            ],
        },
        "hub": {
            "podSelector": servers,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [hub, proxy], "ports": [{"port": 8888, "protocol": "TCP"}]}],
            "egress": [
                {"to": [hub], "ports": [{"port": 8081, "protocol": "TCP"}]},
                {"to": [proxy], "ports": [{"port": 8000, "protocol": "TCP"}]},
            ],
        },
        "operator": {
            "podSelector": {"matchLabels": {"dask.org/component": "scheduler"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [of_hub("cnai.dev/role", "operator")], "ports": [{"port": 8787, "protocol": "TCP"}]}],
        },
        "internet": {
            "podSelector": own,
            "policyTypes": ["Egress"],
            "egress": [
                {
                    "to": [
                        {"ipBlock": {"cidr": "0.0.0.0/0", "except": four}},
                        {"ipBlock": {"cidr": "::/0", "except": ["fc00::/7", "fe80::/10", "2001:db8::/32"]}},
                    ]
                }
            ],
        },
        "api-server": {
            "podSelector": {**servers, **own},
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}], "ports": [{"port": 6443, "protocol": "TCP"}]}],
        },
        "reachable": {
            "podSelector": own,
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.9.0.0/24"}}]}],
        },
    }


def test_bindings_and_accounts():
    assert access.hub_binding("cnai-ada", CLUSTER) == {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "hub", "namespace": "cnai-ada"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cnai-hub-tenant"},
        "subjects": [HUB],
    }
    assert access.tenant_binding("cnai-ada")["subjects"] == [
        {"kind": "ServiceAccount", "name": "notebook", "namespace": "cnai-ada"}
    ]
    assert access.accounts("cnai-ada") == [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": "cnai-ada"},
            "automountServiceAccountToken": False,
        }
        for name in ("notebook", "default")
    ]


def test_the_roles_whole():
    read = ["get", "list", "watch"]
    rbac, dask, crd = "rbac.authorization.k8s.io", "kubernetes.dask.org", "apiextensions.k8s.io"
    rules = {
        role["metadata"]["name"]: [
            (*rule["apiGroups"], " ".join(rule["resources"]), *rule["verbs"]) for rule in role["rules"]
        ]
        for role in access.roles(CLUSTER)
    }
    assert rules == {
        "cnai-hub": [
            ("", "namespaces", "get", "create"),
            ("", "pods events nodes", *read),
            (rbac, "rolebindings", "get", "create", "patch"),
            (rbac, "clusterroles", "bind"),
        ],
        "cnai-hub-tenant": [
            ("", "pods persistentvolumeclaims", *read, "create", "delete"),
            ("", "resourcequotas limitranges serviceaccounts", "get", "create", "patch"),
            ("networking.k8s.io", "networkpolicies", "get", "create", "patch"),
        ],
        "cnai-tenant": [
            (dask, "daskclusters", *read, "create", "patch", "delete"),
            (dask, "daskworkergroups", *read),
            (dask, "daskclusters/scale daskworkergroups/scale", "get", "patch", "update"),
            ("", "pods pods/log services events resourcequotas persistentvolumeclaims", *read),
            ("apps", "deployments replicasets", *read),
        ],
        "cnai-operator": [
            (crd, "customresourcedefinitions", "list", "watch"),
            ("", "namespaces", "list", "watch"),
            (dask, "daskclusters daskworkergroups", *read, "patch"),
            (dask, "daskclusters", "delete"),
            (dask, "daskworkergroups", "create"),
            (dask, "daskworkergroups/scale", "get", "patch"),
            (dask, "daskjobs daskautoscalers", *read),
            ("", "pods", *read),
            ("", "services", *read, "create", "patch"),
            ("apps", "deployments", *read, "create", "patch", "delete"),
            ("", "events", "create"),
        ],
    }


def test_only_two_roles_can_be_given_by_the_hub():
    (hub, *_) = access.roles(CLUSTER)
    assert hub["rules"][-1]["resourceNames"] == ["cnai-hub-tenant", "cnai-tenant"]


def test_every_admission_policy_denies_and_fails_closed():
    made = tenants.cluster_manifests(CLUSTER)
    policies = [each for each in made if each["kind"] == "ValidatingAdmissionPolicy"]
    bindings = [each for each in made if each["kind"] == "ValidatingAdmissionPolicyBinding"]
    assert [policy["metadata"]["name"] for policy in policies] == [
        "cnai-fence", "cnai-pods", "cnai-daskclusters", "cnai-daskcluster-gpus",
    ]  # fmt: skip
    assert [binding["spec"]["policyName"] for binding in bindings] == [
        *[policy["metadata"]["name"] for policy in policies], "cnai-daskcluster-gpus",
    ]  # fmt: skip
    assert {binding["spec"]["validationActions"][0] for binding in bindings} == {"Deny"}
    assert {policy["spec"]["failurePolicy"] for policy in policies} == {"Fail"}
    tenants_only = {"matchExpressions": [{"key": "cnai.dev/tenant", "operator": "Exists"}]}
    assert [(b["spec"].get("matchResources") or {}).get("namespaceSelector") for b in bindings] == [
        None, tenants_only, tenants_only, tenants_only, tenants_only,
    ]  # fmt: skip


@pytest.mark.usefixtures("starts_children")
@pytest.mark.parametrize(
    ("image", "said"), [("", "left out because --hub-image is not given"), ("r.example/hub@sha256:0", "")]
)
def test_an_administrator_gets_one_list(image, said):
    command = [sys.executable, "-m", "cnai_hub.tenants", "--hub-namespace", "lab", "--registries", "r.example/"]
    done = subprocess.run([*command, "--hub-image", image], capture_output=True, check=True, text=True)
    expected = tenants.cluster_manifests(Cluster(hub_namespace="lab", registries=("r.example/",), hub_image=image))
    assert json.loads(done.stdout) == {"apiVersion": "v1", "kind": "List", "items": expected}
    assert said in done.stderr
    assert bool(said) == bool(done.stderr)


def test_an_administrators_list_begins_with_what_the_rest_needs():
    made = tenants.cluster_manifests(Cluster(hub_image="r.example/hub@sha256:0"))
    kinds = [each["spec"]["names"]["kind"] for each in made if each["kind"] == "CustomResourceDefinition"]
    assert kinds == ["DaskCluster", "DaskWorkerGroup", "DaskJob", "DaskAutoscaler"]
    assert [each["kind"] for each in made[:4]] == ["CustomResourceDefinition"] * 4
    assert [each["kind"] for each in made[-2:]] == ["PersistentVolumeClaim", "Deployment"]


def test_room_for_releases():
    assert tenant_operator.releases(Cluster(hub_namespace="lab", releases_gib=7, storage_class="fast")) == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "cnai-releases", "namespace": "lab"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "7Gi"}},
            "storageClassName": "fast",
        },
    }
    assert "storageClassName" not in tenant_operator.releases(Cluster())["spec"]


def test_the_operators_pod():
    made = tenant_operator.deployment(Cluster(hub_image="r.example/hub@sha256:0"))
    labels = {"cnai.dev/role": "operator", "app.kubernetes.io/name": "cnai-operator"}
    assert made["metadata"] == {"name": "cnai-operator", "namespace": "cnai", "labels": labels}
    assert (made["spec"]["replicas"], made["spec"]["strategy"]) == (1, {"type": "Recreate"})
    assert made["spec"]["selector"] == {"matchLabels": labels}
    assert made["spec"]["template"]["metadata"] == {"labels": labels}
    pod = made["spec"]["template"]["spec"]
    (container,) = pod.pop("containers")
    assert pod == {
        "serviceAccountName": "cnai-operator",
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 100,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "64Mi"}}],
    }
    assert container["image"] == "r.example/hub@sha256:0"
    assert container["args"][:3] == ["python", "-m", "cnai_hub.kubernetes.operator"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": 8080}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}


def test_a_namespace_of_somebody_else_is_refused_with_a_sentence():
    assert tenants.refusal(tenants.namespace("ada"), "ada") == ""
    assert tenants.refusal(tenants.namespace("bob"), "ada") == (
        "namespace 'cnai-bob' belongs to 'bob', so 'ada' can't use it; ask your administrator to delete it"
    )
    assert tenants.refusal({"metadata": {"name": "cnai-ada"}}, "ada") == (
        "namespace 'cnai-ada' was not created by cnai, so 'ada' can't use it; ask your administrator to delete it"
    )


NAMES = st.text(min_size=1, max_size=80)
NEAR = st.text(alphabet="aAbB0-._@", min_size=1, max_size=60)


@given(NAMES | NEAR)
def test_every_user_has_a_valid_namespace(user):
    name = tenants.namespace_name(user)
    assert re.fullmatch(r"cnai-[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
    assert len(name) <= 63


@given(st.lists(NEAR | NAMES, min_size=2, max_size=8, unique=True))
def test_two_users_share_no_namespace(users):
    assert len({tenants.namespace_name(user) for user in users}) == len(users)


@given(NAMES | NEAR)
def test_a_made_up_name_is_nobody_elses_plain_one(user):
    label = names.tenant_label(user)
    assert names.tenant_label(label) == label if label == user else names.tenant_label(label) != label


@pytest.mark.parametrize(
    ("user", "name"),
    [
        ("ada", "cnai-ada"),
        ("ada-l", "cnai-ada-l"),
        ("Ada", "cnai-ada--99a563ab2f6e"),
        ("ada@x.org", "cnai-ada-x-org--210e59f6e61a"),
        ("-", "cnai-user--3973e022e932"),
    ],
)
def test_names_are_the_same_forever(user, name):
    assert tenants.namespace_name(user) == name


ANSWERED = st.lists(st.text(max_size=3) | st.integers())


@given(st.lists(st.text(max_size=3), unique=True), ANSWERED, ANSWERED, st.integers(0, 9))
def test_the_operator_ends_only_what_exists(exist, free, busy, number):
    ended = operator.to_end(exist, free, busy, number)
    assert set(ended) <= set(exist)
    assert len(ended) == len(set(ended)) == min(number, len(exist))
    wanted = {name for name in free if name in exist}
    assert len(wanted & set(ended)) == min(number, len(wanted))
    spared = {name for name in busy if name in exist} - wanted
    assert len(spared & set(ended)) == max(0, len(ended) - len(exist) + len(spared))


def test_without_an_answer_the_newest_end():
    assert operator.to_end(["w1", "w2", "w3"], [], [], 2) == ["w3", "w2"]
    assert operator.to_end(["w1", "w2", "w3"], ["w1", "../../victim"], [], 2) == ["w1", "w3"]


def test_a_node_that_never_came_ends_before_one_that_works():
    assert operator.to_end(["w1", "w2", "w3"], [], ["w3", "w1"], 2) == ["w2", "w3"]


def _deployment(status, at="2026-01-01T00:00:00Z"):
    condition = {"type": "Available", "status": status, "lastTransitionTime": at}
    return {"status": {"conditions": [{"type": "Progressing", "status": "False"}, condition]}}


def test_how_long_a_cluster_has_had_no_scheduler():
    now = datetime(2026, 1, 1, 0, 20, tzinfo=UTC).timestamp()
    created = "2025-12-31T23:00:00Z"
    assert operator.without_scheduler(_deployment("False"), created, now) == 1200
    assert operator.without_scheduler(_deployment("Unknown"), created, now) == 1200
    assert operator.without_scheduler(_deployment("True"), created, now) == 0
    assert operator.without_scheduler({}, created, now) == 0, "it is being started"
    assert operator.without_scheduler(None, created, now) == 4800, "nobody made one"


def _service(**spec):
    return {"spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "http-dashboard", "port": 8787}], **spec}}


@pytest.mark.parametrize(
    ("service", "address"),
    [(_service(), "http://10.96.0.7:8787"), (_service(clusterIP="fd00::7", type="ClusterIP"), "http://[fd00::7]:8787")],
)
def test_the_operator_asks_the_address_that_the_cluster_gave(service, address):
    assert operator.api_address(service) == address


@pytest.mark.parametrize(
    "spec",
    [{"clusterIP": "None"}, {"clusterIP": None}, {"type": "ExternalName"}, {"ports": []}, {"type": "LoadBalancer"}],
)
def test_the_operator_asks_nobody_else(spec):
    with pytest.raises(operator.SchedulerRefused):
        operator.api_address(_service(**spec))
