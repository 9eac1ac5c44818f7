"""The tests' imitation of the chart sets every trait that the chart sets, compared by running both."""

from __future__ import annotations

import copy

import pytest
import yaml
import z2jh

pytest.importorskip("kubespawner", reason="the extra `kubernetes` is not installed")

from hub.kubernetes import chart

OURS = yaml.safe_load((chart.ROOT / "helm-values.yaml").read_text())
_TERM = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
_NEAR = {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}
_BOX = {"name": "box", "image": "registry.example/box:1"}
_TOLERATION = {"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}

VALUES = {
    "defaults": {},
    "ours": OURS,
    "hub": {
        "hub": {
            "concurrentSpawnLimit": 3,
            "activeServerLimit": 7,
            "baseUrl": "/lab/",
            "allowNamedServers": True,
            "namedServerLimitPerUser": 4,
            "authenticatePrometheus": False,
            "redirectToServer": False,
            "shutdownOnLogout": True,
            "templatePaths": ["/srv/pages"],
            "templateVars": {"announcement": "closed"},
            "consecutiveFailureLimit": 2,
            "services": {"tester": {"url": "http://tester", "apiToken": "0"}},
            "loadRoles": {"auditor": {"scopes": ["list:users"], "users": ["eve"]}},
            "config": {"JupyterHub": {"admin_access": False}, "KubeSpawner": {"delete_pvc": False}},
            "extraConfig": {"a": "c.Spawner.args = ['--x']", "b": "c.Spawner.args += ['--y']"},
        },
        "debug": {"enabled": True},
    },
    "a database elsewhere": {"hub": {"db": {"type": "postgres", "url": "postgresql://db/cnai"}}},
    "a database in memory": {"hub": {"db": {"type": "sqlite-memory"}}},
    "names": {"fullnameOverride": "lab", "nameOverride": "notebooks"},
    "servers": {
        "imagePullSecrets": [{"name": "one"}],
        "singleuser": {
            "podNameTemplate": "nb-{username}",
            "startTimeout": 900,
            "image": {
                "name": "registry.example/lab",
                "tag": "1",
                "pullPolicy": "Always",
                "pullSecrets": [{"name": "two"}],
            },
            "events": False,
            "extraLabels": {"team": "x"},
            "extraAnnotations": {"note": "y"},
            "uid": 1001,
            "fsGid": 101,
            "serviceAccountName": "robot",
            "allowPrivilegeEscalation": None,
            "extraTolerations": [_TOLERATION],
            "nodeSelector": {"pool": "users"},
            "extraNodeAffinity": {"required": [_TERM], "preferred": [{"weight": 1, "preference": _TERM}]},
            "extraPodAffinity": {"required": [_NEAR], "preferred": [{"weight": 2, "podAffinityTerm": _NEAR}]},
            "extraPodAntiAffinity": {"required": [_NEAR], "preferred": [{"weight": 3, "podAffinityTerm": _NEAR}]},
            "lifecycleHooks": {"postStart": {"exec": {"command": ["true"]}}},
            "initContainers": [_BOX],
            "extraContainers": [_BOX],
            "memory": {"limit": "4G", "guarantee": "2G"},
            "cpu": {"limit": 2, "guarantee": 0.5},
            "extraResource": {"limits": {"ephemeral-storage": "1Gi"}, "guarantees": {"ephemeral-storage": "1Mi"}},
            "extraEnv": {"HF_HOME": "/models"},
            "extraPodConfig": {"runtimeClassName": "nvidia"},
            "profileList": [{"display_name": "x"}],
            "cmd": ["start.sh"],
            "defaultUrl": "/lab",
            "extraFiles": {"a.txt": {"mountPath": "/etc/a.txt", "mode": 292, "stringData": "a"}},
            "networkTools": {"image": {"name": "registry.example/tools", "tag": "2"}, "resources": {}},
        },
    },
    "no command": {"singleuser": {"cmd": None, "cloudMetadata": {"blockWithIptables": False}}},
    "a claim for each": {
        "singleuser": {
            "storage": {
                "extraLabels": {"team": "x"},
                "capacity": "2Gi",
                "homeMountPath": "/home/a",
                "dynamic": {
                    "storageClass": "fast",
                    "subPath": "home",
                    "pvcNameTemplate": "c-{username}",
                    "volumeNameTemplate": "v-{username}",
                    "storageAccessModes": ["ReadWriteMany"],
                },
                "extraVolumes": {"data": {"name": "data", "emptyDir": {}}},
                "extraVolumeMounts": {"data": {"name": "data", "mountPath": "/data"}},
            }
        }
    },
    "a claim for all": {
        "singleuser": {
            "storage": {
                "type": "static",
                "static": {"pvcName": "everybody", "subPath": "home/{username}"},
                "extraVolumes": [{"name": "data", "emptyDir": {}}],
                "extraVolumeMounts": [{"name": "data", "mountPath": f"/data{number}"} for number in (1, 2)],
            }
        }
    },
    "placement": {
        "scheduling": {
            "userScheduler": {"enabled": False},
            "podPriority": {"enabled": True},
            "userPods": {"tolerations": [], "nodeAffinity": {"matchNodePurpose": "require"}},
        }
    },
    "any node": {"scheduling": {"userPods": {"nodeAffinity": {"matchNodePurpose": "ignore"}}}},
    "cull": {
        "cull": {
            "users": True,
            "adminUsers": False,
            "removeNamedServers": True,
            "timeout": 60,
            "every": 0,
            "concurrency": 2,
            "maxAge": 90,
        }
    },
    "no cull": {"cull": {"enabled": False}},
}


@pytest.mark.parametrize("given", VALUES.values(), ids=VALUES)
def test_every_trait_is_the_charts(given, tmp_path, monkeypatch):
    real = chart.real(tmp_path)
    for image in ("image", "networkTools.image"):
        _without_registry(real.defaults, f"singleuser.{image}")
    values = z2jh.merged(given, {"hub": {"extraConfig": {"cnai": None}}})
    monkeypatch.setenv("LAB_HUB_SERVICE_PORT", "8081")
    monkeypatch.setenv("LAB_PROXY_API_SERVICE_PORT", "8001")
    loaded = []
    for number, each in enumerate((chart.imitated(), real)):
        etc = tmp_path / str(number)
        etc.mkdir()
        loaded.append(_plain(chart.load(each, values, etc, monkeypatch)))
    imitated, expected = loaded
    assert imitated == expected


def _without_registry(values, path):
    for key in path.split("."):
        values = values[key]
    values["name"] = values["name"].rpartition("/")[2]


def _plain(config):
    """Return a configuration without the secrets, which each release generates."""
    made = copy.deepcopy({name: dict(traits) for name, traits in config.items()})
    assert made["JupyterHub"].pop("cookie_secret") and made.pop("CryptKeeper")["keys"]
    for each in made["JupyterHub"]["services"]:
        each["api_token"] = bool(each.get("api_token"))
    return made
