"""Pure functions of our one-node cluster; the tests need no cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from onenode import components, configs, network, pki, processes, programs
from onenode.place import ClusterError, Place

SAVED = r"""
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:CNI-aaaa - [0:0]
:CNI-bbbb - [0:0]
:DOCKER - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 10.244.0.2/32 -m comment --comment "name: \"cnai\" id: \"1\"" -j CNI-aaaa
-A POSTROUTING -s 10.88.0.2/32 -m comment --comment "name: \"podman\" id: \"2\"" -j CNI-bbbb
-A CNI-aaaa -d 10.244.0.0/24 -m comment --comment "name: \"cnai\" id: \"1\"" -j ACCEPT
-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-X
COMMIT
"""


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "cache", tmp_path / "state")


def test_only_our_rules_are_removed():
    assert network.removal("nat", SAVED).splitlines() == [
        "*nat",
        '-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-D POSTROUTING -s 10.244.0.2/32 -m comment --comment "name: \\"cnai\\" id: \\"1\\"" -j CNI-aaaa',
        "-F CNI-aaaa",
        "-F KUBE-SERVICES",
        "-X CNI-aaaa",
        "-X KUBE-SERVICES",
        "COMMIT",
    ]
    assert network.removal("filter", "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n") == ""


def test_nothing_listens_to_other_machines(place):
    texts = [*configs.files(place).values(), *(" ".join(words) for words in components.commands(place).values())]
    assert not [text for text in texts if "0.0.0.0:" in text or '"addr": ":' in text]


def test_files_are_rewritten_only_when_they_differ(place):
    configs.write(place)
    proxy = place.state / "config" / "proxy.yaml"
    os.utime(proxy, (1, 1))
    configs.write(place)
    assert proxy.stat().st_mtime == 1
    proxy.write_text("{}")
    configs.write(place)
    assert json.loads(proxy.read_text())["kind"] == "KubeProxyConfiguration"


def test_keys_are_for_their_owner_and_written_once(place):
    pki.write(place)
    keys = [*(place.state / "pki").glob("*.key"), place.kubeconfig]
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    before = place.kubeconfig.read_bytes()
    pki.write(place)
    assert place.kubeconfig.read_bytes() == before


@pytest.mark.usefixtures("starts_children")
def test_a_process_is_known_by_more_than_its_pid(place):
    assert processes.start(place, "sleeper", ["sleep", "1000"])
    pid = processes.running(place, "sleeper")
    assert not processes.start(place, "sleeper", ["sleep", "1000"])
    other = subprocess.Popen(["sleep", "1000"])
    (place.state / "run" / "other.pid").write_text(f"{other.pid} 1")
    assert processes.running(place, "other") is None
    assert not processes.stop(place, "other")
    assert other.poll() is None
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert processes.stop(place, "sleeper")
    assert processes.birth(pid) == ""


@pytest.mark.usefixtures("starts_children")
def test_a_component_that_ends_says_why(place):
    processes.start(place, "broken", ["sh", "-c", "echo no such flag >&2; exit 1"])
    with pytest.raises(ClusterError, match=r"(?s)the port: broken ended; .*no such flag"):
        processes.wait(place, "broken", "the port", lambda: False, 60)


def test_versions_come_from_the_modules():
    assert programs.version("kube", "k8s.io/kubernetes").startswith("v1.")
    assert programs.version("kueue", "sigs.k8s.io/kueue").startswith("v0.")


def test_bad_words_end_in_one_line(place, monkeypatch):
    with pytest.raises(ClusterError, match="unknown program 'kubernetes'; allowed: kube, pause"):
        programs.build(place, ["kubernetes"])
    monkeypatch.setenv("CNAI_FAKE_GPUS", "many")
    with pytest.raises(ClusterError, match="CNAI_FAKE_GPUS is 'many'; give a number, 0 for none"):
        Place.from_environment()
