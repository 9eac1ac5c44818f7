"""Reasons: explains in plain words why a pod doesn't start, and why the API server refused a request.

Pure functions of Kubernetes objects and messages, for the hub's pages and for runs; this module calls no cluster.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cnai.labels import GPU, GPU_PRODUCT
from cnai.programs import TENANTS
from cnai.quantities import amount, product, quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


# After this many restarts, waiting longer won't help a container.
_HOPELESS_RESTARTS = 3

_PULLING = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
_NO_SUCH_IMAGE = re.compile(r"not ?found|manifest unknown|name unknown|InvalidImageName|couldn't parse image", re.I)
_NO_ACCESS = re.compile(r"unauthorized|denied|forbidden|authentication required|no basic auth", re.I)


class Reason(str):
    """One plain sentence without its period, empty if nothing is wrong.

    `heals` tells whether the problem may go away by itself. If not, callers should give up immediately.
    """

    __slots__ = ("heals",)
    heals: bool

    def __new__(cls, text: str = "", *, heals: bool = True) -> Reason:
        """Return the sentence with its `heals`."""
        reason = super().__new__(cls, text)
        reason.heals = heals
        return reason


def of_pod(pod: Mapping[str, Any], events: Iterable[Mapping[str, Any]] = ()) -> Reason:
    """Return why a pod doesn't run, empty if nothing is wrong. `events` may include events of other objects."""
    own = _of(pod, events)
    for reason in (_ended(pod), _container(pod, own), _unscheduled(pod), _preparing(pod, own)):
        if reason:
            return reason
    return Reason()


def of_refusal(message: str) -> Reason:
    """Return why the API server refused a request, from its message or the JSON around the message; never heals."""
    text = _plain(message)
    for pattern, sentence in _REFUSALS:
        if found := pattern.search(text):
            return Reason(sentence(found), heals=False)
    return Reason(f"Kubernetes refuses: {text}" if text else "Kubernetes refuses without a reason", heals=False)


def seconds(text: str) -> float:
    """Return a timestamp of the API server in seconds since 1970 (UTC)."""
    return datetime.fromisoformat(text).timestamp()


def last_seen(event: Mapping[str, Any]) -> float:
    """Return when an event last happened, in seconds since 1970: the latest of its set times, 0 if none is set."""
    series, metadata = event.get("series") or {}, event.get("metadata") or {}
    times = (
        series.get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        metadata.get("creationTimestamp"),
    )
    return max((seconds(time) for time in times if time), default=0.0)


def _of(pod: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the events of this pod, newest first, without those of an earlier pod of the same name."""
    metadata = pod.get("metadata") or {}
    name, uid = metadata.get("name"), metadata.get("uid")
    own = []
    for event in events:
        about = event.get("involvedObject") or event.get("regarding") or {}
        if about.get("name") in (None, name) and (not uid or about.get("uid") in (None, uid)):
            own.append(event)
    return sorted(own, key=last_seen, reverse=True)


def _ended(pod: Mapping[str, Any]) -> Reason:
    """Return why a pod has ended for good; only a new pod can replace it."""
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            why = _plain(condition.get("message") or "")
            return Reason(f"Kubernetes terminated the pod: {why}", heals=False)
    if status.get("phase") == "Failed" and status.get("reason"):
        return Reason(f"the pod failed ({status['reason']}): {_plain(status.get('message') or '')}", heals=False)
    return Reason()


def _container(pod: Mapping[str, Any], events: list[Mapping[str, Any]]) -> Reason:
    status = pod.get("status") or {}
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        state = container.get("state") or {}
        waiting = state.get("waiting") or {}
        why = waiting.get("reason")
        if why in _PULLING:
            return _pull(container.get("image") or "", why, waiting.get("message") or "", events)
        if why == "CrashLoopBackOff":
            return _crash(pod, container, container.get("lastState") or {})
        if why in {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}:
            return Reason(f"the container can't be created: {_plain(waiting.get('message') or why)}", heals=False)
        if (state.get("terminated") or {}).get("exitCode"):
            return _crash(pod, container, state)
    return Reason()


def _pull(image: str, why: str, message: str, events: list[Mapping[str, Any]]) -> Reason:
    failures = [str(event.get("message") or "") for event in events if event.get("reason") == "Failed"]
    text = f"{why} {message} {' '.join(failures)}"
    if _NO_SUCH_IMAGE.search(text):
        return Reason(f"the image can't be pulled: {image} doesn't exist in its registry", heals=False)
    if _NO_ACCESS.search(text):
        return Reason(f"the image can't be pulled: the registry denies access to {image}", heals=False)
    if why == "ErrImageNeverPull":
        return Reason(f"the image can't be used: {image} isn't on the node, and the pull policy is Never", heals=False)
    detail = _plain(next((line for line in failures if "Failed to pull" in line), message)).rpartition(": ")[2]
    return Reason(f"the image can't be pulled yet: {image}: {detail or why}; Kubernetes tries again")


def _crash(pod: Mapping[str, Any], container: Mapping[str, Any], state: Mapping[str, Any]) -> Reason:
    ended = state.get("terminated") or {}
    restarts = int(container.get("restartCount") or 0)
    never = (pod.get("spec") or {}).get("restartPolicy") == "Never"
    heals = restarts < _HOPELESS_RESTARTS and not never
    if ended.get("reason") == "OOMKilled":
        limit = _limits(pod).get("memory")
        size = f" ({amount('memory', limit)})" if limit else ""
        return Reason(f"the pod needed more memory than its flavor has{size} and was killed", heals=heals)
    times = f", {restarts + 1} times" if restarts else ""
    message = f": {_plain(ended['message'])}" if ended.get("message") else ""
    return Reason(f"the pod's program ended (exit code {ended.get('exitCode', '?')}{times}){message}", heals=heals)


def _unscheduled(pod: Mapping[str, Any]) -> Reason:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") != "PodScheduled" or condition.get("status") != "False":
            continue
        if condition.get("reason") == "SchedulingGated":
            return Reason("the pod waits for its turn in the queue")
        return Reason(_no_node(pod, str(condition.get("message") or "")))
    return Reason()


def _no_node(pod: Mapping[str, Any], message: str) -> str:
    spec, limits = pod.get("spec") or {}, _limits(pod)
    if claim := re.search(r'persistentvolumeclaim "([^"]+)" not found', message):
        return f"the volume claim {claim[1]!r} doesn't exist"
    if "unbound immediate PersistentVolumeClaims" in message:
        return "the pod waits for its volume, which doesn't exist yet"
    selector = spec.get("nodeSelector") or {}
    gpu = product(selector.get(GPU_PRODUCT, ""))
    if f"Insufficient {GPU}" in message:
        kind = f" {gpu}" if gpu else ""
        return f"no node has {amount(GPU, limits.get(GPU, 1)).replace(' GPU', f' free{kind} GPU')}"
    for resource in ("memory", "cpu"):
        if f"Insufficient {resource}" in message:
            return f"no node has {amount(resource, _requests(pod).get(resource, 0))} free"
    if "Too many pods" in message:
        return "no node has room for another pod"
    if "didn't match Pod's node affinity/selector" in message and selector:
        labels = ", ".join(f"{key}={value}" for key, value in selector.items())
        return f"no node has {gpu} GPUs" if gpu else f"no node is labeled {labels}"
    if "untolerated taint" in message:
        return "every free node is reserved for other workloads"
    return f"no node can run the pod: {_plain(message) or 'the scheduler gave no reason'}"


def _preparing(pod: Mapping[str, Any], events: list[Mapping[str, Any]]) -> Reason:
    """Return what a scheduled pod waits for before its containers start."""
    status = pod.get("status") or {}
    if status.get("phase") not in (None, "Pending") or not events:
        return Reason()
    newest = events[0]
    why, message = newest.get("reason"), _plain(str(newest.get("message") or ""))
    if why in {"FailedMount", "FailedAttachVolume", "FailedMapVolume"}:
        return Reason(f"a volume can't be mounted yet: {message}; Kubernetes tries again")
    if why == "FailedCreatePodSandBox":
        return Reason(f"the node can't create the pod yet: {message}; Kubernetes tries again")
    if why == "Pulling":
        image = re.search(r'"([^"]+)"', message)
        return Reason(f"still pulling the image{f' {image[1]}' if image else ''}")
    return Reason()


def _resources(pod: Mapping[str, Any], which: str) -> dict[str, Any]:
    containers = (pod.get("spec") or {}).get("containers") or ()
    found: dict[str, Any] = {}
    for container in containers:
        for key, value in ((container.get("resources") or {}).get(which) or {}).items():
            found[key] = quantity(found.get(key, 0)) + quantity(value)
    return found


def _limits(pod: Mapping[str, Any]) -> dict[str, Any]:
    return _resources(pod, "limits")


def _requests(pod: Mapping[str, Any]) -> dict[str, Any]:
    return {**_limits(pod), **_resources(pod, "requests")}


def _plain(message: str) -> str:
    """Return a message as one line, extracted from the JSON that clients put around it."""
    text = message.strip()
    if text.startswith("{"):
        with suppress(ValueError):
            text = str(json.loads(text).get("message", text))
    return " ".join(text.split()).rstrip(".")


def _quota(found: re.Match[str]) -> str:
    asked, used, limited = (_amounts(found[group]) for group in ("asked", "used", "limited"))
    sentences = [
        f"the quota allows {amount(resource, most)}; {amount(resource, used.get(resource, 0))} in use,"
        f" {amount(resource, asked.get(resource, 0))} more requested"
        for resource, most in limited.items()
    ]
    return f"{'; '.join(sentences)}; stop something else, or request less"


def _amounts(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split(",") if "=" in pair)


def _may_not(found: re.Match[str]) -> str:
    who = found["who"].removeprefix("system:serviceaccount:").replace(":", "/")
    where = f" in namespace {found['where']!r}" if found["where"] else ""
    return (
        f"the account {who} may not {found['verb']} {found['what']}{where};"
        f" ask your administrator to apply `python -m {TENANTS}` again"
    )


def _quoted(prefix: str) -> Any:
    return lambda found: prefix + found[1].rstrip(".")


_REFUSALS: tuple[tuple[re.Pattern[str], Any], ...] = (
    (
        re.compile(r"exceeded quota: [^,]+, requested: (?P<asked>\S+), used: (?P<used>\S+), limited: (?P<limited>\S+)"),
        _quota,
    ),
    (
        # The kind of object was defined a moment ago. An existing quota counts it only after Kubernetes has checked all
        # quotas again, by default every five minutes.
        re.compile(r"status unknown for quota"),
        lambda _: "the quota doesn't count these objects yet; try again in five minutes",
    ),
    (re.compile(r"denied request: cnai: (.*)"), _quoted("the cluster's rules don't allow it: ")),
    (re.compile(r"denied request: (.*)"), _quoted("a rule of the cluster doesn't allow it: ")),
    (re.compile(r'violates PodSecurity "[^"]*": (.*)'), _quoted("the cluster doesn't allow such a pod: ")),
    (re.compile(r"failed quota: \S+ (must specify .*)"), _quoted("the cluster doesn't allow such a pod: it ")),
    (
        re.compile(
            r'User "(?P<who>[^"]*)" cannot (?P<verb>\S+) resource "(?P<what>[^"]*)"'
            r'(?: in API group "[^"]*")?(?: in the namespace "(?P<where>[^"]*)")?'
        ),
        _may_not,
    ),
    (
        re.compile(r"being terminated"),
        lambda _: "the namespace is being deleted; try again in a minute",
    ),
    (
        re.compile(r"Unauthorized"),
        lambda _: "the API server rejects the account's token (expired?); stop the server and start it again",
    ),
    (
        re.compile(r"could not find the requested resource|no matches for kind|404 page not found"),
        lambda _: f"this cluster doesn't know these objects; ask your administrator to apply `python -m {TENANTS}`",
    ),
)
