"""Rights: checks that a notebook has exactly the rights at the API server that training needs, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnai.faces.doctor.report import Check
from cnai.labels import DASK_CLUSTERS, DASK_GROUP
from cnai.programs import TENANTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cnai.backends.kubernetes.api import Api

    Right = tuple[str, str, str]

_READ = "get list watch"
NEEDED = (
    (DASK_GROUP, DASK_CLUSTERS, f"{_READ} create patch delete"),
    (DASK_GROUP, "daskworkergroups", _READ),
    (DASK_GROUP, f"{DASK_CLUSTERS}/scale daskworkergroups/scale", "get patch update"),
    ("", "pods pods/log services events resourcequotas persistentvolumeclaims", _READ),
    ("apps", "deployments replicasets", _READ),
)
"""Group, resources and verbs, as the role `cnai-tenant` has them; a test compares the two."""

# Checked one by one, since an API server need not list all rights of an account.
_DANGEROUS = (
    ("", "secrets", "get"),
    ("", "pods", "create"),
    ("", "pods/exec", "create"),
    ("", "serviceaccounts/token", "create"),
    ("apps", "deployments", "create"),
    ("networking.k8s.io", "networkpolicies", "delete"),
    ("rbac.authorization.k8s.io", "rolebindings", "create"),
)
_ELSEWHERE = (("", "pods", "list"), ("", "secrets", "get"), (DASK_GROUP, DASK_CLUSTERS, "create"))
_ADVICE = f"ask your administrator to apply the roles of cnai again: python -m {TENANTS}"
_SHOWN = 6


def needed() -> Iterator[Right]:
    """Yield group, resource and verb of each right that training needs."""
    for group, resources, verbs in NEEDED:
        yield from ((group, resource, verb) for resource in resources.split() for verb in verbs.split())


def look(api: Api, namespace: str) -> Check:
    """Compare the account's rights with the needed ones."""
    missing = [right for right in needed() if not _allowed(api, right, namespace)]
    if missing:
        return Check.wrong("API rights", f"missing: {_in_words(missing)}", _ADVICE)
    excess = [*_listed(api, namespace), *(right for right in _DANGEROUS if _allowed(api, right, namespace))]
    everywhere = [right for right in _ELSEWHERE if _allowed(api, right, "")]
    if excess or everywhere:
        found = [_in_words(dict.fromkeys(excess))] if excess else []
        found += [f"in all namespaces: {_in_words(everywhere)}"] if everywhere else []
        return Check.wrong("API rights", f"more than training needs: {'; '.join(found)}", _ADVICE)
    return Check.ok("API rights", f"all {len(list(needed()))} that training needs, no others")


def _allowed(api: Api, right: Right, namespace: str) -> bool:
    """Tell whether this account has a right, in all namespaces if none is given."""
    group, resource, verb = right
    kind, _, part = resource.partition("/")
    attributes = {"group": group, "resource": kind, "subresource": part, "verb": verb, "namespace": namespace}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = api.ask("apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
    return bool(answer["status"]["allowed"])


def _listed(api: Api, namespace: str) -> Iterator[Right]:
    """Yield listed rights that training does not need, except questions about oneself, which every account may ask."""
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    answer = api.ask("apis/authorization.k8s.io/v1/selfsubjectrulesreviews", body)
    known = set(needed())
    for rule in answer["status"]["resourceRules"]:
        for right in _spelled(rule):
            if right not in known and not right[1].startswith("selfsubject"):
                yield right


def _spelled(rule: Mapping[str, list[str]]) -> Iterator[Right]:
    for group in rule.get("apiGroups") or [""]:
        for resource in rule.get("resources") or []:
            yield from ((group, resource, verb) for verb in rule["verbs"])


def _in_words(rights: object) -> str:
    """Return the first few rights in plain words."""
    words = [f"{verb} {resource}" for _, resource, verb in list(rights)]  # type: ignore[call-overload]
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more
