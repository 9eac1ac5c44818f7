"""The hub on a real cluster, installed from helm-values.yaml as an administrator would, and removed again.

Several hubs can run at the same time: each has a namespace, users, and cluster-wide bindings of its own.
"""

from __future__ import annotations

import secrets
import socket
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import portforward
import tenancy
import yaml
import z2jh
from realcluster import Cluster, Refused, rest

from cnai_hub import tenants

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from helmchart import Helm

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 240.0
_NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
_TESTER_SCOPES = ["admin:users", "admin:servers", "admin:groups", "access:servers", "tokens", "shares", "read:hub"]

# Finds the hub among the descendants of the container's first process, and kills it like a crash.
_KILL = (
    "import os,signal\n"
    "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
    "    words = open(f'/proc/{pid}/cmdline').read().split(chr(0))\n"
    "    if int(pid) > 1 and '--config' in words: os.kill(int(pid), signal.SIGKILL)\n"
)

# Hardly anything is requested, so that twenty fit on a small node beside everything else.
SMALL = {
    "custom": {
        "cnai": {
            "catalog": {
                "image": [{"name": "torch", "title": "PyTorch", "default": True}],
                "flavor": [
                    {"name": "tiny", "title": "Tiny", "cpu": 0.5, "memory_gib": 0.75, "default": True},
                    {"name": "wide", "title": "Wide", "cpu": 1, "memory_gib": 1, "price_per_hour": 0.1},
                    {"name": "gpu", "title": "GPU", "cpu": 0.5, "memory_gib": 0.75, "gpus": 1, "groups": ["gpu"]},
                ],
            },
            "cpu_share": 0.02,
            "memory_share": 0.2,
            "home": {"storage_gib": 0.25},
        }
    }
}


@dataclass
class HubPod:
    """A release: its namespace, its public address, and its users."""

    cluster: Cluster
    namespace: str
    values: dict[str, Any]
    port: int
    token: str
    suffix: str
    user_password: str = field(default_factory=lambda: secrets.token_hex(8))
    admin_password: str = field(default_factory=lambda: secrets.token_hex(16))
    killed: str = ""
    secrets: dict[str, str] = field(default_factory=z2jh.new_secrets)
    helm: Helm | None = None
    """Installs the stock chart instead of our imitation of it."""

    @property
    def url(self) -> str:
        """Return the address of the proxy, from this machine."""
        return f"http://127.0.0.1:{self.port}"

    def person(self, name: str) -> str:
        """Return the name of a user on this hub; two hubs share no users, and so no namespaces of users."""
        return f"{name}-{self.suffix}"

    @property
    def api(self) -> httpx.Client:
        """Return a client of the hub's REST API that may do everything the tests need."""
        headers = {"Authorization": f"token {self.token}"}
        return client(f"{self.url}/hub/api", headers=headers)

    # Release

    def apply(self) -> None:
        """Install the release, or upgrade it to `values`: secrets stay as the chart keeps them."""
        if self.helm:
            return self.helm.install(self.namespace, self.values)
        made = z2jh.manifests(self.values, namespace=self.namespace, secrets=self.secrets)
        return tenancy.apply(self.cluster, *made)

    def kubectl(self, *words: str) -> str:
        """Run kubectl in the release's namespace."""
        return self.cluster.kubectl("-n", self.namespace, *words)

    def log(self, *, previous: bool = False) -> str:
        """Return the hub's log since its start, or that of its previous container."""
        return self.kubectl("logs", "deployment/hub", "--tail=-1", *(["--previous"] if previous else []))

    def wait_until_it_answers(self) -> None:
        """Wait for proxy and hub; on failure show the hub's log."""
        try:
            until(self._answers, "the hub answers")
        except AssertionError as error:
            with suppress(Refused):
                error.add_note(self.kubectl("get", "pods", "-o", "wide"))
                error.add_note(self.log()[-5000:])
            raise

    def _answers(self) -> bool:
        assert self._restarts() < 3, "the hub ends again and again"
        if self.life() in {self.killed, ""}:
            return False
        with suppress(httpx.HTTPError):
            # The apps service is a process of its own, and its route is added last. Until then the proxy may connect to
            # a pod that no longer exists, and nothing refuses the connection: such a request takes most of a minute.
            apps = client(self.url, timeout=3).get("/services/apps/")
            return apps.status_code == 302 and self.api.get("/info").status_code == 200
        return False

    def life(self) -> str:
        """Return an id of the ready container, because a killed hub may still answer for a moment."""
        return next((f"{name}/{each['restartCount']}" for name, each in self._statuses() if each["ready"]), "")

    def _restarts(self) -> int:
        """Return how often the hub has exited by itself, while it waits for its next start."""
        return max((each["restartCount"] for _, each in self._statuses() if "waiting" in each["state"]), default=0)

    def _statuses(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for pod in self.cluster.get("pods", "-n", self.namespace, "-l", "component=hub")["items"]:
            for each in pod["status"].get("containerStatuses", []):
                yield pod["metadata"]["name"], each

    def operate(self, image: str, *names: str) -> None:
        """Run the operator as a pod, for the users of this hub only, since operators of other hubs may be running."""
        settings = tenants.Cluster(**{**self.values["custom"]["cnai"]["cluster"], "hub_image": image})
        deployment = tenants.operator.deployment(settings)
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        container["args"] += [f"--namespace={tenants.namespace_name(name)}" for name in names]
        tenancy.apply(self.cluster, deployment)
        self.kubectl("rollout", "status", f"deployment/{deployment['metadata']['name']}", "--timeout=300s")

    # Death

    def kill_pod(self) -> None:
        """Delete the hub's pod at once, as a lost node would."""
        self.killed = self.life()
        self.kubectl("delete", "pod", "-l", "component=hub", "--force", "--grace-period=0", "--wait=false")

    def kill_process(self) -> None:
        """Kill the hub's process in its container, without a chance to shut down."""
        self.killed = self.life()
        try:
            self.kubectl("exec", "deployment/hub", "--", "python3", "-c", _KILL)
        except Refused as error:
            if "exit code 137" not in str(error):  # the command ended with its container
                raise

    # People

    def password(self, name: str) -> str:
        """Return the password of a user; `ada` administers the hub."""
        return self.admin_password if name == self.person("ada") else self.user_password

    def login(self, name: str) -> httpx.Client:
        """Return a browser session of a user who has logged in by the form."""
        session = client(self.url, headers=_NAVIGATION, follow_redirects=True)
        session.get("/hub/login")
        xsrf = session.cookies.get("_xsrf", path="/hub/")
        form = {"username": name, "password": self.password(name), "_xsrf": xsrf}
        page = session.post("/hub/login", data=form)
        assert page.status_code == 200, page.text
        return session

    def start(self, name: str, server: str = "", **options: str) -> httpx.Response:
        """Request a user's server."""
        return self.api.post(f"/users/{name}/servers/{server}", json={"user_options": options})

    def server(self, name: str, server: str = "") -> dict[str, Any] | None:
        """Return the hub's model of a server."""
        found: dict[str, Any] = self.api.get(f"/users/{name}").raise_for_status().json()
        model: dict[str, Any] | None = found["servers"].get(server)
        return model

    def wait_ready(self, name: str, server: str = "") -> dict[str, Any]:
        """Wait until the hub reports a server as ready, and return its model."""
        ready = lambda: (model := self.server(name, server)) and model["ready"] and model  # noqa: E731
        found: dict[str, Any] = until(ready, f"the server {name}/{server} is ready")
        return found

    def stop(self, name: str, server: str = "") -> None:
        """Stop a server and wait until it no longer exists."""
        self.api.delete(f"/users/{name}/servers/{server}")
        until(lambda: not self.server(name, server), f"the server {name}/{server} is gone")

    @contextmanager
    def visited_by(self, name: str) -> Iterator[str]:
        """Yield a user's name; afterwards stop their server."""
        yield self.person(name)
        self.wait_until_it_answers()
        self.stop(self.person(name))

    def leads_to(self, name: str) -> bool:
        """Tell whether the proxy reaches a user's server."""
        return client(self.url).get(f"/user/{name}/api").status_code == 200

    def pods(self, name: str) -> list[dict[str, Any]]:
        """Return the server pods of a user."""
        namespace = tenants.namespace_name(name)
        found: list[dict[str, Any]] = self.cluster.get("pods", "-n", namespace, "-l", "component=singleuser-server")[
            "items"
        ]
        return found


def client(url: str, timeout: float = PATIENCE_SECONDS, **more: Any) -> httpx.Client:
    """Return a client for a hub's plain HTTP address, without loading certificate authorities, which would be slow."""
    return httpx.Client(base_url=url, timeout=timeout, verify=False, **more)


def until(found: Any, what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Call `found` until it returns a true value, and return the value."""
    deadline = time.monotonic() + seconds
    refused: Exception | None = None
    while (begin := time.monotonic()) < deadline:
        try:
            if value := found():
                return value
        except (httpx.HTTPError, Refused) as error:
            refused = error
        rest(begin)
    raise AssertionError(f"not within {seconds:g} s: {what}") from refused


def shipped(*overlays: str) -> dict[str, Any]:
    """Return the values that we ship, with some of their overlays."""
    names = ["helm-values.yaml", *(f"helm-values.{name}.yaml" for name in overlays)]
    return z2jh.merged(*(yaml.safe_load((ROOT / name).read_text()) for name in names))


@contextmanager
def installed(
    cluster: Cluster,
    images: Mapping[str, str],
    *overlays: dict[str, Any],
    namespace: str = "",
    helm: Helm | None = None,
) -> Iterator[HubPod]:
    """Install a hub as an administrator does: roles and policies once, then the release; remove everything afterwards.

    `images` maps folders of Dockerfiles to references. With `helm` the release is one of the stock chart.
    """
    suffix = secrets.token_hex(3)
    namespace = namespace or f"cnai-hub-{suffix}"
    hub = HubPod(cluster, namespace, {}, _free_port(), secrets.token_hex(16), suffix, helm=helm)
    hub.values = z2jh.merged(shipped("development"), _for_tests(hub, images), *overlays)
    settings = tenants.Cluster(**hub.values["custom"]["cnai"]["cluster"])
    reachable = portforward.forwarded(cluster, namespace, "proxy-public", hub.port)
    with tenancy.administered(cluster, settings, suffix), reachable:
        hub.apply()
        hub.wait_until_it_answers()
        try:
            yield hub
        finally:
            _remove_tenants(hub)


def _image(reference: str) -> dict[str, str]:
    """Return name and tag in the form that the chart expects; it joins them with a colon."""
    name, _, tag = reference.rpartition(":")
    return {"name": name, "tag": tag}


def _for_tests(hub: HubPod, images: Mapping[str, str]) -> dict[str, Any]:
    tester = {"apiToken": hub.token}
    people = [hub.person(name) for name in ("ada", "grace")]
    return {
        "custom": {
            "cnai": {
                "url": f"{hub.url}/",
                "references": {"torch": images["notebook"]},
                "cluster": {"hub_namespace": hub.namespace},
            }
        },
        "hub": {
            "image": _image(images["hub"]),
            "services": {"tester": tester},
            "loadRoles": {"tester": {"services": ["tester"], "scopes": _TESTER_SCOPES}},
            "config": {
                "JupyterHub": {"load_groups": {"creators": {"users": people}, "gpu": {"users": people[:1]}}},
                "Authenticator": {"admin_users": people[:1], "allowed_users": [*people, hub.person("guest")]},
                "SharedPasswordAuthenticator": {
                    "user_password": hub.user_password,
                    "admin_password": hub.admin_password,
                },
                "KubeSpawner": {"k8s_api_request_timeout": 20},
            },
        },
        "proxy": {"chp": {"image": _image(images["hub"])}},
    }


def _remove_tenants(hub: HubPod) -> None:
    """Delete the namespaces of this hub's users; the hub itself has no right to."""
    found = hub.cluster.get("namespaces", "-l", "cnai.dev/tenant")["items"]
    names = [each["metadata"]["name"] for each in found if hub.suffix in each["metadata"]["name"]]
    # Otherwise the hub would start the servers that are stopped here.
    hub.kubectl("scale", "deployment/hub", "--replicas=0")
    if names:
        tenancy.remove(hub.cluster, *names)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
