"""The host's side of the network: a bridge with the node's address, and rules that keep all traffic on the machine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from onenode.place import NETWORK, NODE_BRIDGE, NODE_IP, POD_BRIDGE, PODS, SERVICES
from onenode.shell import call, works

if TYPE_CHECKING:
    from onenode.place import Place

_SYSCTLS = ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables")
_NO_WAY_OUT = ("FORWARD", "-s", PODS, "!", "-d", "10.0.0.0/8", "-j", "REJECT")
_TABLES = ("nat", "filter", "mangle", "raw")


def up(place: Place) -> None:
    """Make the node's address, and close the ways out."""
    _remember_sysctls(place)
    for name in _SYSCTLS:
        Path("/proc/sys", name).write_text("1")
    if not works("ip", "link", "show", NODE_BRIDGE):
        call("ip", "link", "add", NODE_BRIDGE, "type", "bridge")
    call("ip", "address", "replace", f"{NODE_IP}/32", "dev", NODE_BRIDGE)
    call("ip", "link", "set", NODE_BRIDGE, "up")
    # A service address without rules yet must not leave by the default route, where anything may answer.
    call("ip", "route", "replace", SERVICES, "dev", NODE_BRIDGE)
    if not works("iptables", "-w", "-C", *_NO_WAY_OUT):
        call("iptables", "-w", "-I", *_NO_WAY_OUT)


def down(place: Place) -> None:
    """Remove bridges and rules, and set the kernel's switches back."""
    for bridge in (POD_BRIDGE, NODE_BRIDGE):
        if works("ip", "link", "show", bridge):
            call("ip", "link", "delete", bridge)
    while works("iptables", "-w", "-D", *_NO_WAY_OUT):
        pass
    for prefix in ("", "6"):
        for table in _TABLES:
            script = removal(table, call(f"ip{prefix}tables-save", "-t", table))
            if script:
                call(f"ip{prefix}tables-restore", "-w", "--noflush", given=script)
    _restore_sysctls(place)


def removal(table: str, saved: str) -> str:
    """Return what `iptables-restore --noflush` needs to remove Kubernetes' chains and our pods', or nothing.

    Chains of other CNI networks, whose names look the same, stay.
    """
    chains = re.findall(r"^:(\S+)", saved, re.MULTILINE)
    rules = re.findall(r"^-A (\S+) (.*)$", saved, re.MULTILINE)
    ours = {chain for chain in chains if chain.startswith("KUBE-")}
    ours |= {
        target[1]
        for _, rule in rules
        if f'name: \\"{NETWORK}\\"' in rule and (target := re.search(r"-j (CNI-\S+)", rule))
    }
    if not ours:
        return ""
    jumps = [
        f"-D {chain} {rule}"
        for chain, rule in rules
        if chain not in ours and (target := re.search(r"-j (\S+)", rule)) and target[1] in ours
    ]
    emptied = [f"-F {chain}" for chain in sorted(ours)]
    removed = [f"-X {chain}" for chain in sorted(ours)]
    return "\n".join([f"*{table}", *jumps, *emptied, *removed, "COMMIT", ""])


def _remember_sysctls(place: Place) -> None:
    path = place.state / "sysctls.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({name: Path("/proc/sys", name).read_text().strip() for name in _SYSCTLS}))


def _restore_sysctls(place: Place) -> None:
    path = place.state / "sysctls.json"
    if path.exists():
        for name, value in json.loads(path.read_text()).items():
            Path("/proc/sys", name).write_text(value)
