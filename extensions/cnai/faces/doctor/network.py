"""Network policies: tries forbidden connections, since a cluster may accept policies without enforcing them."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlparse

from cnai import environment
from cnai.faces.doctor.report import Check

METADATA = ("169.254.169.254", 80)
PROXY_API = ("proxy-api", 8001)
"""The proxy's own API in the hub's namespace; it always runs where the proxy runs, and only the hub may connect."""
_SECONDS = 4
_ADVICE = "ask your administrator for a controller of network policies, such as Calico or Cilium"


def look() -> Check:
    """Try connections that every tenant's policies forbid, to servers that are known to listen."""
    hub = urlparse(environment.HUB_URL.get())
    namespace = (hub.hostname or "").partition(".")[2].partition(".")[0]
    api = (f"{PROXY_API[0]}.{namespace}", PROXY_API[1])
    proxy = (hub.hostname or "", hub.port or 80)
    with ThreadPoolExecutor() as pool:
        tried = {METADATA: "", **({api: "", proxy: ""} if namespace else {})}
        tried = dict(zip(tried, pool.map(_try, tried), strict=True))
    reached = [target for target in (api, METADATA) if tried.get(target) == "reached"]
    if reached:
        found = f"not enforced: {' and '.join(map(_described, reached))} can be reached, although they forbid it"
        return Check.wrong("network policies", found, _ADVICE)
    if tried.get(proxy) == "reached" and tried[api] == "silent":
        return Check.ok("network policies", f"enforced: {_described(api)} and {_described(METADATA)} can't be reached")
    return Check.unknown("network policies", "can't be checked: found no server to try in the hub's namespace")


def _try(target: tuple[str, int]) -> str:
    """Return reached, silent, or nameless if the name can't be resolved."""
    try:
        socket.getaddrinfo(*target)
    except OSError:
        return "nameless"
    try:
        socket.create_connection(target, timeout=_SECONDS).close()
    except OSError:
        return "silent"
    return "reached"


def _described(target: tuple[str, int]) -> str:
    kind = "the cloud's metadata" if target == METADATA else "the proxy's API"
    return f"{kind} ({target[0]}:{target[1]})"
