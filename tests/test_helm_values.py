"""The values that we ship: keys that the chart knows, names that exist, nothing that runs as root or by a loose tag."""

import itertools
import re
from pathlib import Path

import helmchart
import pytest
import yaml
import z2jh

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "helm-values.yaml"
OVERLAYS = {name: ROOT / f"helm-values.{name}.yaml" for name in ("development", "production")}
IMAGE = "name tag pullPolicy pullSecrets"
POLICY = "enabled ingress egress egressAllowRules interNamespaceAccessLabels allowedIngressPorts"
ALLOW = (
    "cloudMetadataServer dnsPortsCloudMetadataServer dnsPortsKubeSystemNamespace dnsPortsPrivateIPs"
    " nonPrivateIPs privateIPs"
)
PROBE = "enabled initialDelaySeconds periodSeconds failureThreshold timeoutSeconds"
ACCOUNT = "create name annotations"
PDB = "enabled maxUnavailable minAvailable"

# What release 4.4 of the chart takes, as far as we may use it: path -> keys. A path that has no entry takes anything.
KNOWN = {
    "": "custom hub rbac proxy singleuser scheduling prePuller ingress httpRoute cull debug global imagePullSecret"
    " imagePullSecrets fullnameOverride nameOverride enabled",
    "hub": "revisionHistoryLimit config service baseUrl cookieSecret initContainers nodeSelector tolerations"
    " concurrentSpawnLimit consecutiveFailureLimit activeServerLimit deploymentStrategy db labels annotations command"
    " args extraConfig extraFiles extraEnv extraContainers extraVolumes extraVolumeMounts image resources"
    " podSecurityContext containerSecurityContext lifecycle loadRoles services pdb networkPolicy allowNamedServers"
    " namedServerLimitPerUser authenticatePrometheus redirectToServer shutdownOnLogout templatePaths templateVars"
    " livenessProbe readinessProbe existingSecret serviceAccount extraPodSpec",
    "hub.image": IMAGE,
    "hub.service": "type annotations ports extraPorts loadBalancerIP",
    "hub.service.ports": "nodePort appProtocol",
    "hub.db": "type upgrade pvc url password",
    "hub.db.pvc": "annotations selector accessModes storage subPath storageClassName",
    "hub.pdb": PDB,
    "hub.networkPolicy": POLICY,
    "hub.networkPolicy.egressAllowRules": ALLOW,
    "hub.livenessProbe": PROBE,
    "hub.readinessProbe": PROBE,
    "hub.serviceAccount": ACCOUNT,
    "rbac": "create",
    "proxy": "secretToken annotations deploymentStrategy service chp traefik secretSync labels https",
    "proxy.service": "type labels annotations nodePorts disableHttpPort extraPorts loadBalancerIP"
    " loadBalancerSourceRanges",
    "proxy.chp": "revisionHistoryLimit containerSecurityContext image extraCommandLineFlags livenessProbe"
    " readinessProbe resources defaultTarget errorTarget extraEnv nodeSelector tolerations networkPolicy pdb"
    " extraPodSpec",
    "proxy.chp.image": IMAGE,
    "proxy.chp.networkPolicy": POLICY,
    "proxy.chp.networkPolicy.egressAllowRules": ALLOW,
    "proxy.chp.livenessProbe": PROBE,
    "proxy.chp.readinessProbe": PROBE,
    "proxy.chp.pdb": PDB,
    "proxy.https": "enabled type letsencrypt manual secret hosts",
    "proxy.https.secret": "name key crt",
    "singleuser": "podNameTemplate extraTolerations nodeSelector extraNodeAffinity extraPodAffinity"
    " extraPodAntiAffinity networkTools cloudMetadata networkPolicy events extraAnnotations extraLabels extraFiles"
    " extraEnv lifecycleHooks initContainers extraContainers allowPrivilegeEscalation uid fsGid serviceAccountName"
    " storage image startTimeout cpu memory extraResource cmd defaultUrl extraPodConfig profileList",
    "singleuser.cloudMetadata": "blockWithIptables ip",
    "singleuser.networkPolicy": POLICY,
    "singleuser.networkPolicy.egressAllowRules": ALLOW,
    "singleuser.storage": "type extraLabels extraVolumes extraVolumeMounts static capacity homeMountPath dynamic",
    "singleuser.image": IMAGE,
    "scheduling": "userScheduler podPriority userPlaceholder corePods userPods",
    "scheduling.userScheduler": "enabled revisionHistoryLimit replicas logLevel plugins pluginConfig"
    " containerSecurityContext image nodeSelector tolerations labels annotations pdb resources serviceAccount"
    " extraPodSpec",
    "scheduling.userPlaceholder": "enabled image revisionHistoryLimit replicas labels annotations"
    " containerSecurityContext resources extraPodSpec",
    "scheduling.podPriority": "enabled globalDefault defaultPriority imagePullerPriority userPlaceholderPriority",
    "prePuller": "revisionHistoryLimit labels annotations resources containerSecurityContext extraTolerations hook"
    " continuous pullProfileListImages extraImages pause",
    "prePuller.hook": "enabled pullOnlyOnChanges image containerSecurityContext podSchedulingWaitDuration nodeSelector"
    " tolerations resources serviceAccount serviceAccountImagePuller",
    "prePuller.continuous": "enabled serviceAccount",
    "ingress": "enabled annotations ingressClassName hosts pathSuffix pathType tls extraPaths",
    "cull": "enabled users adminUsers removeNamedServers timeout every concurrency maxAge",
    "debug": "enabled",
    "global": "safeToShowValues",
}


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def unknown(values: dict, path: str = "") -> list[str]:
    """Paths that the chart's schema would refuse."""
    found = []
    for key, value in values.items():
        inner = f"{path}.{key}" if path else key
        if path in KNOWN and key not in KNOWN[path].split():
            found.append(inner)
        elif isinstance(value, dict) and inner in KNOWN:
            found += unknown(value, inner)
    return found


def together(*overlays: str) -> dict:
    return z2jh.merged(read(BASE), *(read(OVERLAYS[name]) for name in overlays))


@pytest.mark.parametrize("path", [BASE, *OVERLAYS.values()], ids=lambda path: path.stem)
def test_every_key_is_one_of_the_charts(path):
    assert unknown(read(path)) == []


@pytest.mark.parametrize(
    "path", sorted(path for path in KNOWN if path and not path.endswith(("Probe", "pdb")) and path.count(".") < 3)
)
def test_a_typo_anywhere_is_found(path):
    values = keys = {}
    for word in path.split("."):
        keys[word] = {}
        keys = keys[word]
    keys["typpo"] = True
    assert unknown(values) == [f"{path}.typpo"]


def test_python_in_the_values_is_the_hook_and_nothing_else():
    for overlay in OVERLAYS:
        config = together(overlay)["hub"]["extraConfig"]
        assert {key: code.strip().splitlines() for key, code in config.items()} == {
            "cnai": [
                "from cnai_hub.kubernetes import configure",
                'configure(c, get_config("custom.cnai"), get_config)',
            ]
        }


def leaves(values, path=""):
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}.{key}" if path else key)
        else:
            yield f"{path}.{key}" if path else key, value


@pytest.mark.parametrize("path", [BASE, *OVERLAYS.values()], ids=lambda path: path.stem)
def test_a_comment_gives_the_reason_for_each_deviation(path):
    """Each key of the chart's sections has a comment above it or in its block."""
    lines = path.read_text().splitlines()
    keys = [n for n, line in enumerate(lines) if re.match(r"  [A-Za-z]+:", line) and n > lines.index("hub:")]
    for number, end in zip(keys, [*keys[1:], len(lines)], strict=True):
        # What stands between this key's block and the next key is the next one's.
        block = itertools.takewhile(lambda line: line.startswith("   "), lines[number + 1 : end])
        assert "#" in lines[number - 1] or any("#" in line for line in block), lines[number]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_in_the_values(overlay):
    """Names of secrets and addresses are there, what opens something is not."""
    secret = re.compile(r"password|[cC]redential|(secret|[tT]oken|[kK]eys|(secret|private|crypt)_?[kK]ey)$")
    found = [path for given in (read(BASE), read(OVERLAYS[overlay])) for path, value in leaves(given) if value]
    assert [path for path in found if secret.search(path)] == []
    # What it looks for is there, without its value.
    assert "hub.config.SharedPasswordAuthenticator.admin_password" in dict(leaves(read(OVERLAYS["development"])))


@pytest.mark.parametrize("overlay", [(), *((name,) for name in OVERLAYS)], ids=lambda each: each[0] if each else "base")
def test_what_the_chart_makes_of_it_is_restricted(overlay):
    """Every container of the release is what the restricted Pod Security Standard admits, and a bit more."""
    manifests = z2jh.manifests(together(*overlay), namespace="cnai", secrets=z2jh.new_secrets())
    deployments = [each for each in manifests if each["kind"] == "Deployment"]
    assert [each["metadata"]["name"] for each in deployments] == ["proxy", "hub"]
    for each in deployments:
        spec = each["spec"]["template"]["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for container in spec["containers"]:
            context = {**spec.get("securityContext", {}), **container["securityContext"]}
            assert context["runAsNonRoot"] is True and context["runAsUser"] > 0
            assert context["capabilities"] == {"drop": ["ALL"]} and not context["allowPrivilegeEscalation"]
            assert context["seccompProfile"] == {"type": "RuntimeDefault"} and context["readOnlyRootFilesystem"]
            assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]


def test_the_hub_has_no_role_of_the_chart_and_the_proxy_no_token():
    manifests = z2jh.manifests(together(), namespace="cnai", secrets=z2jh.new_secrets())
    assert not [each for each in manifests if each["kind"] in {"Role", "RoleBinding", "ClusterRole"}]
    (proxy,) = (each for each in manifests if each["kind"] == "Deployment" and each["metadata"]["name"] == "proxy")
    assert proxy["spec"]["template"]["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_new_release_upgrades_the_database(overlay):
    manifests = z2jh.manifests(together(overlay), namespace="cnai", secrets=z2jh.new_secrets())
    (hub,) = (each for each in manifests if each["kind"] == "Deployment" and each["metadata"]["name"] == "hub")
    (container,) = hub["spec"]["template"]["spec"]["containers"]
    assert "--upgrade-db" in container["args"]


def test_one_port_for_the_apps_service_everywhere():
    values = together()
    hub, proxy = values["hub"], values["proxy"]["chp"]
    (port,) = (each["port"] for each in hub["service"]["extraPorts"] if each["name"] == "apps")
    opened = [each["port"] for rule in hub["networkPolicy"]["ingress"] for each in rule["ports"]]
    asked = [each["port"] for rule in proxy["networkPolicy"]["egress"] for each in rule["ports"]]
    assert port in opened and port in asked


@pytest.fixture(scope="module")
def helm(starts_processes, tmp_path_factory):
    return helmchart.helm(tmp_path_factory.mktemp("chart"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_helm_takes_them(helm, overlay):
    files = [f"--values={file}" for file in (BASE, OVERLAYS[overlay])]
    checked = helm("lint", str(helm.chart), f"--kube-version={helmchart.OLDEST}", *files)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    made = helm.template(*files)
    assert made.returncode == 0, made.stderr
    kinds = {each["kind"] for each in yaml.safe_load_all(made.stdout) if each}
    assert {"Deployment", "Service", "Secret", "ConfigMap", "NetworkPolicy"} <= kinds
    assert not kinds & {"Role", "ClusterRole", "DaemonSet", "Job"}


def test_helm_refuses_a_typo(helm):
    done = helm.template(f"--values={BASE}", "--set=hub.typpo=1")
    assert done.returncode != 0 and "typpo" in done.stderr
