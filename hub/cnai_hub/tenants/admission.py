"""Admission policies: requests that the API server refuses, from hub, operator and tenants.

The API server evaluates them; they are written in CEL. Pod Security (`restricted`) already refuses host paths, host
networks, privileges and root; these policies add rules that it doesn't have.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from cnai.labels import COMPONENT, DASK_CLUSTERS, DASK_GROUP, GPU, HUB_IN_TENANT, ROLE, TENANT, TENANT_ROLE, USER
from cnai_hub.tenants.limits import QUOTA
from cnai_hub.tenants.names import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnai_hub.tenants.cluster import Cluster

    Rule = tuple[str, str]
    from cnai.foreign import Manifest

_GROUP = "admissionregistration.k8s.io/v1"
_RESOURCES = ["cpu", "memory", "ephemeral-storage", GPU]
# Objects that were admitted under other rules, or with a larger quota, can still be deleted.
_STAYS = {"name": "stays", "expression": "!has(object.metadata.deletionTimestamp)"}
# When the operator updates a cluster's status, it requests nothing, even if the quota is smaller by now.
_ASKS = {"name": "asks", "expression": "oldObject == null || object.spec != oldObject.spec"}
_LONGEST_IDLE_SECONDS = 3600
_TENANTS = {"namespaceSelector": {"matchExpressions": [{"key": TENANT, "operator": "Exists"}]}}


def policies(cluster: Cluster) -> list[Manifest]:
    """Return the admission policies, each with its binding."""
    return [
        *_fence(cluster),
        *_bound("cnai-pods", [_on("", "pods", "CREATE")], _over(["object.spec"], pod_rules(cluster)), within=_TENANTS),
        *_bound(
            "cnai-daskclusters",
            [_on(DASK_GROUP, DASK_CLUSTERS, "CREATE", "UPDATE")],
            [
                *_over(["object.spec.scheduler.spec", "object.spec.worker.spec"], pod_rules(cluster)),
                *_dask_rules(cluster),
            ],
            within=_TENANTS,
            matchConditions=[_STAYS],
        ),
        *_gpus(),
    ]


def pod_rules(cluster: Cluster) -> list[Rule]:
    """Return the rules for every pod spec `s` of a tenant."""
    known = "!has(c.resources.{0}) || c.resources.{0}.all(r, r in " + repr(_RESOURCES) + ")"
    rules = [
        (
            _containers(f"!has(c.resources) || (({known.format('limits')}) && ({known.format('requests')}))"),
            f"containers may request only {', '.join(_RESOURCES)}",
        ),
        (
            # The NVIDIA runtime may obey this variable even if the container requests no GPU.
            _containers(
                "!has(c.env) || c.env.all(v, v.name != 'NVIDIA_VISIBLE_DEVICES' ||"
                " (has(v.value) && v.value in ['void', 'none']))"
            ),
            f"NVIDIA_VISIBLE_DEVICES may only be void; ask for GPUs with the limit {GPU}",
        ),
        (
            "!has(s.priorityClassName) || !s.priorityClassName.startsWith('system-')",
            "tenants may not use priority classes of the system",
        ),
        ("!has(s.nodeName) || s.nodeName == ''", "nodeName bypasses the scheduler; use nodeSelector"),
        (
            "!has(s.tolerations) || s.tolerations.all(t, has(t.key) && t.key != ''"
            " && !t.key.startsWith('node-role.kubernetes.io/'))",
            "tolerations must name a key, and it may not be a node's role",
        ),
    ]
    if cluster.registries:
        prefixes = " || ".join(f"c.image.startsWith({prefix!r})" for prefix in cluster.registries)
        rules.append((_containers(prefixes), f"images must come from {' or '.join(cluster.registries)}"))
    return rules


def _dask_rules(cluster: Cluster) -> list[Rule]:
    service = "object.spec.scheduler.service"
    pods = "[dyn(object.spec.scheduler.spec), dyn(object.spec.worker.spec)]"
    labels = "!has({0}.metadata) || !has({0}.metadata.labels) || {0}.metadata.labels.all(k, !(k in %r))"
    own = labels % ([COMPONENT, ROLE, TENANT],)
    without_gpus = (
        f"(has(c.resources) && has(c.resources.limits) && {GPU!r} in c.resources.limits"
        f" && int(c.resources.limits[{GPU!r}]) > 0)"
        " || (has(c.env) && c.env.exists(v, v.name == 'NVIDIA_VISIBLE_DEVICES'))"
    )
    return [
        (
            f"has({service}.type) && {service}.type == 'ClusterIP' && !has({service}.externalIPs)"
            f" && !has({service}.externalName)",
            "the scheduler's service must be of type ClusterIP, without external addresses",
        ),
        (
            f"{pods}.all(s, has(s.automountServiceAccountToken) && !s.automountServiceAccountToken)",
            "pods of Dask clusters must set automountServiceAccountToken to false",
        ),
        (
            f"{pods}.all(s, (!has(s.serviceAccountName) || s.serviceAccountName == 'default')"
            " && (!has(s.serviceAccount) || s.serviceAccount == 'default'))",
            "pods of Dask clusters must use the service account default",
        ),
        (
            f"!has(object.spec.idleTimeout) || (object.spec.idleTimeout >= 0"
            f" && object.spec.idleTimeout <= {_LONGEST_IDLE_SECONDS})",
            f"idleTimeout must be 0 to {_LONGEST_IDLE_SECONDS} seconds",
        ),
        (
            # Images with CUDA set the variable to `all`. For servers, the hub sets it.
            f"{pods}.all(s, {_containers(without_gpus)})",
            f"containers of Dask clusters without the limit {GPU} must set NVIDIA_VISIBLE_DEVICES to void",
        ),
        (
            f"!has(object.spec.worker.replicas) || object.spec.worker.replicas < {cluster.pods}",
            f"Dask clusters must have fewer than {cluster.pods} workers",
        ),
        (
            # These labels decide which network policies apply, and which pods the hub treats as servers.
            " && ".join(f"({own.format(part)})" for part in ("object", "object.spec.scheduler", "object.spec.worker")),
            f"Dask clusters may not set the labels {COMPONENT}, {ROLE}, {TENANT}",
        ),
    ]


def _fence(cluster: Cluster) -> list[Manifest]:
    """Restrict hub and operator to tenants' namespaces, so that a bug in either can't affect other namespaces."""
    hub, operator = (
        f"system:serviceaccount:{cluster.hub_namespace}:{account}"
        for account in (cluster.hub_account, cluster.operator_account)
    )
    resource = "request.resource.resource"
    rules = [
        (
            f"{resource} != 'namespaces' || (object != null && object.metadata.name.startsWith({PREFIX!r})"
            f" && {TENANT!r} in variables.labels && {USER!r} in variables.annotations"
            " && 'pod-security.kubernetes.io/enforce' in variables.labels"
            " && variables.labels['pod-security.kubernetes.io/enforce'] == 'restricted')",
            f"the hub may create only namespaces {PREFIX}… that are labeled {TENANT} and restricted",
        ),
        (
            f"{resource} == 'namespaces' || request.namespace == ''"
            f" || (request.namespace == {cluster.hub_namespace!r} && request.userInfo.username == {hub!r})"
            f" || (namespaceObject != null && has(namespaceObject.metadata.labels)"
            f" && {TENANT!r} in namespaceObject.metadata.labels)",
            "the hub and the operator may work only in tenants' namespaces",
        ),
        (
            f"{resource} != 'rolebindings' || object == null || (has(object.subjects)"
            f" && object.roleRef.name == {HUB_IN_TENANT!r} ? object.subjects.all(s, s.kind == 'ServiceAccount'"
            f" && s.name == {cluster.hub_account!r} && s.namespace == {cluster.hub_namespace!r})"
            f" : object.roleRef.name == {TENANT_ROLE!r} && object.subjects.all(s, s.kind == 'ServiceAccount'"
            " && s.namespace == request.namespace))",
            "the hub may bind only its own role to itself, and a tenant's role to accounts of the tenant",
        ),
    ]
    groups = ["", "apps", DASK_GROUP, "networking.k8s.io", "rbac.authorization.k8s.io"]
    matched = [{"apiGroups": groups, "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]}]
    who = {"name": "hub-or-operator", "expression": f"request.userInfo.username in {[hub, operator]!r}"}
    variables = [
        {
            "name": name,
            "expression": f"object != null && has(object.metadata.{name}) ? object.metadata.{name} : {{}}",
        }
        for name in ("labels", "annotations")
    ]
    return _bound("cnai-fence", matched, rules, matchConditions=[who], variables=variables)


def _gpus() -> list[Manifest]:
    """Compare a Dask cluster with its tenant's quota, so that one with too many GPUs is refused at once, as a whole."""
    key = f"requests.{GPU}"
    limit = f"has(c.resources) && has(c.resources.limits) && {GPU!r} in c.resources.limits"
    variables = [
        {
            "name": "asked",
            "expression": "object.spec.worker.spec.containers.map(c,"
            f" {limit} ? int(c.resources.limits[{GPU!r}]) : 0).sum()"
            " * (has(object.spec.worker.replicas) ? object.spec.worker.replicas : 1)",
        },
        {
            "name": "quota",
            "expression": f"{key!r} in params.spec.hard ? quantity(string(params.spec.hard[{key!r}])).asInteger() : 0",
        },
    ]
    validation = {
        "expression": "variables.asked <= variables.quota",
        "messageExpression": "'cnai: the cluster asks for ' + string(variables.asked) + ' GPUs; the quota is '"
        " + string(variables.quota)",
        "reason": "Forbidden",
    }
    policy, made = _bound(
        "cnai-daskcluster-gpus",
        [_on(DASK_GROUP, DASK_CLUSTERS, "CREATE", "UPDATE")],
        [],
        within=_TENANTS,
        paramKind={"apiVersion": "v1", "kind": "ResourceQuota"},
        matchConditions=[_STAYS, _ASKS],
        variables=variables,
        validations=[validation],
    )
    # While a namespace is being deleted, its quota no longer exists when the operator removes the finalizers of its
    # clusters, which is an update.
    changed = copy.deepcopy(made)
    changed["metadata"]["name"] += "-changed"
    for binding, operation, missing in ((made, "CREATE", "Deny"), (changed, "UPDATE", "Allow")):
        only = [_on(DASK_GROUP, DASK_CLUSTERS, operation)]
        binding["spec"]["matchResources"] = {**_TENANTS, "resourceRules": only}
        binding["spec"]["paramRef"] = {"name": QUOTA, "parameterNotFoundAction": missing}
    return [policy, made, changed]


def _containers(condition: str) -> str:
    """Return the condition on `c` for all containers of `s`."""
    return f"(s.containers + (has(s.initContainers) ? s.initContainers : [])).all(c, {condition})"


def _over(specs: list[str], rules: Iterable[Rule]) -> list[Rule]:
    # dyn: the two specs have different types, and the published schema of pods doesn't include the keys of limits.
    return [(f"[{', '.join(f'dyn({spec})' for spec in specs)}].all(s, {rule})", message) for rule, message in rules]


def _on(group: str, resource: str, *operations: str) -> Manifest:
    return {"apiGroups": [group], "apiVersions": ["v1"], "operations": list(operations), "resources": [resource]}


def _bound(
    name: str,
    matched: list[Manifest],
    rules: Iterable[Rule],
    *,
    within: Manifest | None = None,
    **more: Any,
) -> list[Manifest]:
    validations = [
        {"expression": rule, "message": f"cnai: {message}", "reason": "Forbidden"} for rule, message in rules
    ]
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": matched},
        "validations": validations,
        **more,
    }
    bound: Manifest = {"policyName": name, "validationActions": ["Deny"]}
    if within:
        bound["matchResources"] = within
    return [
        {"apiVersion": _GROUP, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name}, "spec": spec},
        {"apiVersion": _GROUP, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name}, "spec": bound},
    ]
