"""Reasons, in plain words: why a pod doesn't start, and why the API server refused something.

Pure functions of what Kubernetes says, for the hub's pages and for runs; nothing here asks a cluster.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cnai.labels import GPU, GPU_PRODUCT
from cnai.programs import TENANTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


# A container that ended so often doesn't come up by waiting.
_HOPELESS_RESTARTS = 3

_PULLING = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
_NO_SUCH_IMAGE = re.compile(r"not ?found|manifest unknown|name unknown|InvalidImageName|couldn't parse image", re.I)
_NO_ACCESS = re.compile(r"unauthorized|denied|forbidden|authentication required|no basic auth", re.I)


class Reason(str):
    """One plain sentence without its period; empty: nothing is wrong.

    `heals` tells whether waiting may be enough. What doesn't heal should be given up at once.
    """

    __slots__ = ("heals",)
    heals: bool

    def __new__(cls, text: str = "", *, heals: bool = True) -> Reason:
        """Return the sentence with its prospect."""
        reason = super().__new__(cls, text)
        reason.heals = heals
        return reason


def of_pod(pod: Mapping[str, Any], events: Iterable[Mapping[str, Any]] = ()) -> Reason:
    """Say why a pod doesn't run; empty when nothing is wrong. Events of other objects may be among the given ones."""
    own = _of(pod, events)
    for reason in (_ended(pod), _container(pod, own), _unscheduled(pod), _preparing(pod, own)):
        if reason:
            return reason
    return Reason()


def of_refusal(message: str) -> Reason:
    """Say why the API server refused, from its message or the JSON around it; repeating the question won't help."""
    text = _plain(message)
    for pattern, sentence in _REFUSALS:
        if found := pattern.search(text):
            return Reason(sentence(found), heals=False)
    return Reason(f"Kubernetes refuses: {text}" if text else "Kubernetes refuses without a reason", heals=False)


def amount(resource: str, value: str | float) -> str:
    """Return so much of a resource as people say it: `2 GPUs`, `64 GiB of memory`, `1.5 CPUs`."""
    number = quantity(value)
    name = resource.removeprefix("requests.").removeprefix("limits.")
    if name == "memory":
        return f"{number / 2**30:.3g} GiB of memory"
    if name in {"storage", "ephemeral-storage"}:
        return f"{number / 2**30:.3g} GiB of storage"
    word = {GPU: "GPU", "cpu": "CPU", "pods": "pod", "persistentvolumeclaims": "claim"}.get(name)
    if word is None:
        word = name.removeprefix("count/").partition(".")[0].removesuffix("s")
        word = {"daskcluster": "Dask cluster"}.get(word, word)
    return f"{number:.3g} {word}{'' if number == 1 else 's'}"


def product(label: str) -> str:
    """Return the name by which people know a GPU: `H100` of `NVIDIA-H100-80GB-HBM3`, `GeForce RTX 4090`."""
    words = [word for word in label.split("-") if word not in {"NVIDIA", "Tesla"}]
    model = next((number for number, word in enumerate(words) if any(map(str.isdigit, word))), len(words) - 1)
    return " ".join(words[: model + 1])


_UNITS: dict[str, float] = {
    unit: 1024.0 ** (power + 1) for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))
}
_UNITS |= {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}


def quantity(text: str | float) -> float:
    """Return a quantity of Kubernetes (`500m`, `64Gi`, `2`) as a number."""
    found = re.fullmatch(r"([+-]?[\d.]+(?:[eE][+-]?\d+)?)([A-Za-z]*)", str(text).strip())
    if not found or found[2] not in _UNITS:
        raise ValueError(f"not a quantity: {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def seconds(text: str) -> float:
    """Return a time of the API server in seconds since 1970 (UTC)."""
    return datetime.fromisoformat(text).timestamp()


def last_seen(event: Mapping[str, Any]) -> float:
    """Return when an event happened last, in seconds since 1970, whichever of its times are set; 0 if none is."""
    series, metadata = event.get("series") or {}, event.get("metadata") or {}
    times = (
        series.get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        metadata.get("creationTimestamp"),
    )
    return max((seconds(time) for time in times if time), default=0.0)


def _of(pod: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the events of this very pod, the newest first; one of the same name may have been there before."""
    metadata = pod.get("metadata") or {}
    name, uid = metadata.get("name"), metadata.get("uid")
    own = []
    for event in events:
        about = event.get("involvedObject") or event.get("regarding") or {}
        if about.get("name") in (None, name) and (not uid or about.get("uid") in (None, uid)):
            own.append(event)
    return sorted(own, key=last_seen, reverse=True)


def _ended(pod: Mapping[str, Any]) -> Reason:
    """Say why a pod is over: it never comes back by itself, a new one may."""
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            why = _plain(condition.get("message") or "")
            return Reason(f"Kubernetes took the pod's place away: {why}", heals=False)
    if status.get("phase") == "Failed" and status.get("reason"):
        return Reason(f"the pod was ended ({status['reason']}): {_plain(status.get('message') or '')}", heals=False)
    return Reason()


def _container(pod: Mapping[str, Any], events: list[Mapping[str, Any]]) -> Reason:
    status = pod.get("status") or {}
    for one in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        state = one.get("state") or {}
        waiting = state.get("waiting") or {}
        why = waiting.get("reason")
        if why in _PULLING:
            return _pull(one.get("image") or "", why, waiting.get("message") or "", events)
        if why == "CrashLoopBackOff":
            return _crash(pod, one, one.get("lastState") or {})
        if why in {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}:
            return Reason(f"the container can't be made: {_plain(waiting.get('message') or why)}", heals=False)
        if (state.get("terminated") or {}).get("exitCode"):
            return _crash(pod, one, state)
    return Reason()


def _pull(image: str, why: str, message: str, events: list[Mapping[str, Any]]) -> Reason:
    said = [str(event.get("message") or "") for event in events if event.get("reason") == "Failed"]
    text = f"{why} {message} {' '.join(said)}"
    if _NO_SUCH_IMAGE.search(text):
        return Reason(f"the image can't be pulled: {image} doesn't exist in its registry", heals=False)
    if _NO_ACCESS.search(text):
        return Reason(f"the image can't be pulled: the registry doesn't give out {image}", heals=False)
    if why == "ErrImageNeverPull":
        return Reason(f"the image can't be pulled: {image} isn't on the node, and may not be fetched", heals=False)
    detail = _plain(next((line for line in said if "Failed to pull" in line), message)).rpartition(": ")[2]
    return Reason(f"the image can't be pulled yet: {image}: {detail or why}; Kubernetes tries again")


def _crash(pod: Mapping[str, Any], one: Mapping[str, Any], state: Mapping[str, Any]) -> Reason:
    ended = state.get("terminated") or {}
    restarts = int(one.get("restartCount") or 0)
    never = (pod.get("spec") or {}).get("restartPolicy") == "Never"
    heals = restarts < _HOPELESS_RESTARTS and not never
    if ended.get("reason") == "OOMKilled":
        limit = _limits(pod).get("memory")
        of = f" ({amount('memory', limit)})" if limit else ""
        return Reason(f"the pod needed more memory than its flavor has{of} and was killed", heals=heals)
    times = f", {restarts + 1} times" if restarts else ""
    said = f": {_plain(ended['message'])}" if ended.get("message") else ""
    return Reason(f"the pod's program ended (exit code {ended.get('exitCode', '?')}{times}){said}", heals=heals)


def _unscheduled(pod: Mapping[str, Any]) -> Reason:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") != "PodScheduled" or condition.get("status") != "False":
            continue
        if condition.get("reason") == "SchedulingGated":
            return Reason("the pod waits in the queue until its turn comes")
        return Reason(_no_node(pod, str(condition.get("message") or "")))
    return Reason()


def _no_node(pod: Mapping[str, Any], message: str) -> str:
    spec, limits = pod.get("spec") or {}, _limits(pod)
    if claim := re.search(r'persistentvolumeclaim "([^"]+)" not found', message):
        return f"the volume claim {claim[1]!r} doesn't exist"
    if "unbound immediate PersistentVolumeClaims" in message:
        return "the pod waits for its volume, which isn't there yet"
    selector = spec.get("nodeSelector") or {}
    gpu = product(selector.get(GPU_PRODUCT, ""))
    if f"Insufficient {GPU}" in message:
        kind = f" {gpu}" if gpu else ""
        return f"no node has {amount(GPU, limits.get(GPU, 1)).replace(' GPU', f' free{kind} GPU')}"
    for resource in ("memory", "cpu"):
        if f"Insufficient {resource}" in message:
            return f"no node has {amount(resource, _requests(pod).get(resource, 0))} free"
    if "Too many pods" in message:
        return "no node takes another pod"
    if "didn't match Pod's node affinity/selector" in message and selector:
        labels = ", ".join(f"{key}={value}" for key, value in selector.items())
        return f"no node has {gpu} GPUs" if gpu else f"no node is labeled {labels}"
    if "untolerated taint" in message:
        return "every node that is free is kept for something else"
    return f"no node can take the pod: {_plain(message) or 'the scheduler has not said why'}"


def _preparing(pod: Mapping[str, Any], events: list[Mapping[str, Any]]) -> Reason:
    """Say what a scheduled pod waits for before its containers run."""
    status = pod.get("status") or {}
    if status.get("phase") not in (None, "Pending") or not events:
        return Reason()
    newest = events[0]
    why, message = newest.get("reason"), _plain(str(newest.get("message") or ""))
    if why in {"FailedMount", "FailedAttachVolume", "FailedMapVolume"}:
        return Reason(f"a volume can't be mounted yet: {message}; Kubernetes tries again")
    if why == "FailedCreatePodSandBox":
        return Reason(f"the node can't make the pod yet: {message}; Kubernetes tries again")
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
    """Return what a message says on one line, out of the JSON that clients put around it."""
    text = message.strip()
    if text.startswith("{"):
        with suppress(ValueError):
            text = str(json.loads(text).get("message", text))
    return " ".join(text.split()).rstrip(".")


def _quota(found: re.Match[str]) -> str:
    asked, used, limited = (_amounts(found[group]) for group in ("asked", "used", "limited"))
    sentences = [
        f"the quota allows {amount(resource, most)}; {amount(resource, used.get(resource, 0))} in use,"
        f" {amount(resource, asked.get(resource, 0))} more asked for"
        for resource, most in limited.items()
    ]
    return f"{'; '.join(sentences)}; stop something else, or choose less"


def _amounts(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split(",") if "=" in pair)


def _may_not(found: re.Match[str]) -> str:
    who = found["who"].removeprefix("system:serviceaccount:").replace(":", "/")
    where = f" in namespace {found['where']!r}" if found["where"] else ""
    return (
        f"the account {who} may not {found['verb']} {found['what']}{where};"
        f" ask your administrator to apply `python -m {TENANTS}` again"
    )


def _said(prefix: str) -> Any:
    return lambda found: prefix + found[1].rstrip(".")


_REFUSALS: tuple[tuple[re.Pattern[str], Any], ...] = (
    (
        re.compile(r"exceeded quota: [^,]+, requested: (?P<asked>\S+), used: (?P<used>\S+), limited: (?P<limited>\S+)"),
        _quota,
    ),
    (
        # A kind of objects that was defined a moment ago: a quota that was there before counts it when Kubernetes looks
        # at all quotas again, which by default is every five minutes.
        re.compile(r"status unknown for quota"),
        lambda _: "the quota doesn't count yet what it limits; try again in five minutes",
    ),
    (re.compile(r"denied request: cnai: (.*)"), _said("the cluster's rules don't allow it: ")),
    (re.compile(r"denied request: (.*)"), _said("a rule of the cluster doesn't allow it: ")),
    (re.compile(r'violates PodSecurity "[^"]*": (.*)'), _said("the cluster doesn't allow such a pod: ")),
    (re.compile(r"failed quota: \S+ (must specify .*)"), _said("the cluster doesn't allow such a pod: it ")),
    (
        re.compile(
            r'User "(?P<who>[^"]*)" cannot (?P<verb>\S+) resource "(?P<what>[^"]*)"'
            r'(?: in API group "[^"]*")?(?: in the namespace "(?P<where>[^"]*)")?'
        ),
        _may_not,
    ),
    (
        re.compile(r"being terminated"),
        lambda _: "the namespace is being removed; try again in a minute",
    ),
    (
        re.compile(r"Unauthorized"),
        lambda _: "the API server doesn't accept the account's token (expired?); stop the server and start it again",
    ),
    (
        re.compile(r"could not find the requested resource|no matches for kind|404 page not found"),
        lambda _: f"this cluster doesn't know such objects; ask your administrator to apply `python -m {TENANTS}`",
    ),
)
