"""The host's side of the network: a bridge with the node's address, and rules that keep all traffic on the machine."""

from __future__ import annotations

import re
from pathlib import Path

from onenode.place import NETWORK, NODE_BRIDGE, NODE_IP, POD_BRIDGE, PODS, SERVICES
from onenode.shell import call, works

SWITCHES = (Path("/proc/sys/net/ipv4/ip_forward"), Path("/proc/sys/net/bridge/bridge-nf-call-iptables"))
_NO_WAY_OUT = ("FORWARD", "-s", PODS, "!", "-d", "10.0.0.0/8", "-j", "REJECT")
_TABLES = ("nat", "filter", "mangle", "raw")


def up() -> None:
    """Create the bridge with the node's address, and block all traffic that would leave the machine."""
    for name in SWITCHES:
        name.write_text("1")
    if not works("ip", "link", "show", NODE_BRIDGE):
        call("ip", "link", "add", NODE_BRIDGE, "type", "bridge")
    call("ip", "address", "replace", f"{NODE_IP}/32", "dev", NODE_BRIDGE)
    call("ip", "link", "set", NODE_BRIDGE, "up")
    # Packets to a Service address without rules must not leave by the default route, where any host may answer.
    call("ip", "route", "replace", SERVICES, "dev", NODE_BRIDGE)
    if not works("iptables", "-w", "-C", *_NO_WAY_OUT):
        call("iptables", "-w", "-I", *_NO_WAY_OUT)


def down() -> None:
    """Remove bridges and rules."""
    for bridge in bridges():
        call("ip", "link", "delete", bridge)
    while works("iptables", "-w", "-D", *_NO_WAY_OUT):
        pass
    for family, script in removals():
        call(f"{family}-restore", "-w", "--noflush", given=script)


def bridges() -> list[str]:
    """Return which of our bridges exist."""
    return [bridge for bridge in (POD_BRIDGE, NODE_BRIDGE) if works("ip", "link", "show", bridge)]


def removals() -> list[tuple[str, str]]:
    """Return the input for `iptables-restore` and `ip6tables-restore` that removes our rules."""
    pairs = [(family, table) for family in ("iptables", "ip6tables") for table in _TABLES]
    scripts = [(family, removal(table, call(f"{family}-save", "-t", table))) for family, table in pairs]
    return [(family, script) for family, script in scripts if script]


def removal(table: str, saved: str) -> str:
    """Return the input for `iptables-restore --noflush` that removes the chains of Kubernetes and our pods, or nothing.

    Chains of other CNI networks, which have similar names, are kept.
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
