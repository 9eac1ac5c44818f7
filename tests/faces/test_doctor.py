"""The doctor says what is wrong and what to do, and finds nothing wrong where nothing is."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cnai import labels
from cnai.backends.kubernetes.access import Access
from cnai.backends.kubernetes.api import Api
from cnai.faces.doctor import Check, Report, cluster, machine, network, rights
from cnai_hub.tenants import Cluster, access
from run import accounts

NAMESPACE = "api/v1/namespaces/cnai-ada"
DASK = "apis/kubernetes.dask.org/v1"
MANY = {"spec": {"storageClassName": "fast"}, "status": {"phase": "Bound", "accessModes": ["ReadWriteMany"]}}


class Wire(ThreadingHTTPServer):
    """An API server that answers what it was told, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, object] = {"version": {"gitVersion": "v1.35.4"}}
        self.allowed = lambda attributes: True
        self.rules: list[dict] = []
        self.asked: list[tuple[str, str]] = []
        self.token = "fresh"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def _do(self) -> None:
        wire: Wire = self.server
        path = self.path.lstrip("/")
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        wire.asked.append((self.command, path))
        answer = wire.answers.get(path, (404, None))
        if self.headers["Authorization"] != f"Bearer {wire.token}":
            answer = (401, "Unauthorized")
        elif path.endswith("selfsubjectaccessreviews"):
            answer = {"status": {"allowed": wire.allowed(body["spec"]["resourceAttributes"])}}
        elif path.endswith("selfsubjectrulesreviews"):
            answer = {"status": {"resourceRules": wire.rules}}
        elif self.command in ("POST", "DELETE") and not isinstance(answer, tuple):
            answer = {"metadata": body.get("metadata", {})}
        elif path.startswith(f"{DASK}/namespaces/cnai-ada/daskclusters/"):
            answer = wire.answers.get("phase", {})
        code, answer = (answer[0], {"message": answer[1]}) if isinstance(answer, tuple) else (200, answer)
        # So the API server answers about kinds of objects that it doesn't know.
        text = b"404 page not found\n" if answer == {"message": None} else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_DELETE = _do

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def wire(tmp_path):
    server = Wire()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    (tmp_path / "token").write_text("fresh")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def looks(wire, tmp_path):
    return looking(wire.url, tmp_path)


def looking(url, account):
    given = Access(url=url, namespace="cnai-ada", token=account / "token", inside=True)
    return cluster.Cluster(Api(given), "cnai-ada")


def said(check: Check) -> tuple[str, str]:
    return check.state, check.text


@pytest.mark.usefixtures("starts_processes")
def test_a_healthy_machine(home, tmp_path):
    env = {key: value for key, value in os.environ.items() if not key.startswith(("CNAI_BACKEND", "JUPYTERHUB"))}
    command = [sys.executable, "-m", "cnai.faces.cli", "doctor"]
    done = subprocess.run(command, env=env, text=True, capture_output=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    names = [line.split(":")[0].split(None, 1) for line in done.stdout.splitlines()]
    assert names == [["ok", look.__name__.replace("_", " ")] for look in machine.LOOKS]


@pytest.mark.usefixtures("starts_processes")
def test_what_is_wrong_makes_the_exit_code(home, tmp_path):
    (tmp_path / "file").write_text("")
    env = {**os.environ, "CNAI_STORE": str(tmp_path / "file" / "runs")}
    command = [sys.executable, "-m", "cnai.faces.cli", "doctor"]
    done = subprocess.run(command, env=env, text=True, capture_output=True, cwd=tmp_path)
    assert done.returncode == 1
    [line] = [line for line in done.stdout.splitlines() if not line.startswith("ok")]
    assert line.startswith(f"wrong    store: {tmp_path}/file/runs can't be written: Not a directory; free some")


def test_a_full_disk(home, monkeypatch):
    monkeypatch.setattr(machine, "SMALLEST_STORE", 2**60)
    assert machine.store().state == "wrong"
    assert machine.store().text.startswith("only ")
    assert list((home / "runs").iterdir()) == []


def test_a_home_that_others_can_read(reachable, monkeypatch):
    home, store = reachable / "cnai", reachable / "runs"
    monkeypatch.setenv("CNAI_HOME", str(home))
    monkeypatch.setenv("CNAI_STORE", str(store))
    assert said(machine.private_files()) == ("ok", f"{home} is closed to other accounts")
    for folder in (home, store):
        folder.mkdir()
        folder.chmod(0o755)
    assert said(machine.private_files()) == (
        "wrong",
        f"other accounts can open {home} and {store}; close it to them: chmod go= {home} {store}",
    )
    home.chmod(0o700)
    assert said(machine.private_files()) == (
        "wrong",
        f"other accounts can open {store}; close it to them: chmod go= {store}",
    )


@accounts.needed
def test_a_home_of_another_account(reachable, monkeypatch):
    monkeypatch.setenv("CNAI_HOME", str(reachable))
    monkeypatch.delenv("CNAI_STORE", raising=False)
    os.chown(reachable, accounts.NOBODY, accounts.NOBODY)
    advice = "it isn't yours to close: set CNAI_HOME and CNAI_STORE to folders of your own"
    assert machine.private_files().text == f"other accounts can open {reachable}; {advice}"


@pytest.mark.usefixtures("starts_children")
def test_torch_that_can_not_be_imported(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    expected = "can't be imported: ImportError: libcudart.so.13: cannot open; install it again: pip install"
    assert machine.torch().text.startswith(expected)


def test_the_hub(wire, monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_API_URL", wire.url)
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "x")
    wire.answers["user"] = {"name": "ada"}
    assert said(machine.hub()) == (
        "wrong",
        "no longer accepts this server's token; stop the server and start it again",
    )


def test_a_look_that_fails_hides_no_other(monkeypatch, home):
    def broken():
        raise RuntimeError("a bug")

    monkeypatch.delenv("CNAI_BACKEND", raising=False)
    monkeypatch.setattr(machine, "LOOKS", (broken, machine.ports))
    from cnai.faces.doctor import doctor

    report = doctor()
    assert repr(report) == "unknown  broken: RuntimeError: a bug\nok       ports: 127.0.0.1 can be reached"
    assert report.ok


def test_a_notebook_shows_text_as_text():
    report = Report([Check.wrong("a", "<b>", "c")])
    assert "&lt;b&gt;; c" in report._repr_html_()
    assert not report.ok


def test_the_rights_are_those_of_the_tenants_role():
    [role] = [each for each in access.roles(Cluster()) if each["metadata"]["name"] == labels.TENANT_ROLE]
    granted = {right for rule in role["rules"] for right in rights._spelled(rule)}
    assert set(rights.needed()) == granted


def within(attributes):
    right = (attributes["group"], "/".join(filter(None, (attributes["resource"], attributes["subresource"]))))
    return attributes["namespace"] == "cnai-ada" and (*right, attributes["verb"]) in set(rights.needed())


def test_exactly_the_rights(wire, looks):
    wire.allowed = within
    wire.rules = [
        {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews"], "verbs": ["create"]},
    ]
    assert said(looks.api_rights()) == ("ok", f"all {len(list(rights.needed()))} that training needs, no others")


def test_a_right_is_missing(wire, looks):
    wire.allowed = lambda attributes: within(attributes) and attributes["verb"] != "create"
    assert said(looks.api_rights())[1].startswith("missing: create daskclusters; ask your administrator to apply")


def test_a_right_too_much(wire, looks):
    wire.allowed = within
    wire.rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]
    assert "more than training needs: list secrets; ask" in looks.api_rights().text
    wire.rules = []
    wire.allowed = lambda attributes: within({**attributes, "namespace": attributes["namespace"] or "cnai-ada"})
    assert "more than training needs: in all namespaces: list pods, create daskclusters" in looks.api_rights().text
    wire.allowed = lambda attributes: within(attributes) or attributes["resource"] == "secrets"
    found = "more than training needs: get secrets; in all namespaces: get secrets"
    assert looks.api_rights().text.startswith(found)


def test_the_api_server(wire, looks, tmp_path):
    assert said(looks.api_server()) == ("ok", "v1.35.4 answers")
    wire.token = "another"
    assert "no longer accepts this pod's token; stop the server" in looks.api_server().text
    away = looking("http://127.0.0.1:1", tmp_path)
    assert away.api_server().text.startswith("the API server does not answer (ConnectError at http://127.0.0.1:1)")
    bare = looking(wire.url, tmp_path / "none")
    nowhere = f"found no service account token in {tmp_path}/none; tell your administrator"
    assert bare.api_server().text.startswith(nowhere)


def test_missing_definitions(wire, looks):
    expected = f"the API server doesn't know DaskCluster and DaskWorkerGroup; {cluster.INSTALL}"
    assert said(looks.definitions()) == ("wrong", expected)
    wire.answers[DASK] = {"resources": [{"kind": "DaskCluster"}, {"kind": "DaskWorkerGroup"}]}
    assert looks.definitions().state == "ok"


def test_an_operator_that_answers_and_one_that_does_not(wire, looks, monkeypatch):
    where = f"{DASK}/namespaces/cnai-ada/daskclusters"
    assert said(looks.operator())[0] == "unknown"
    wire.answers |= {where: {}, "phase": {"status": {"phase": "Error"}}}
    assert looks.operator().state == "ok"
    monkeypatch.setattr(cluster, "OPERATOR_SECONDS", 0.1)
    wire.answers["phase"] = {}
    assert looks.operator().text.startswith("did not react to a Dask cluster within 0 s; ask your administrator")
    made = [path for method, path in wire.asked if method == "POST"]
    removed = [path for method, path in wire.asked if method == "DELETE"]
    assert (len(made), len(removed)) == (3, 2)
    wire.answers[where] = (403, 'exceeded quota: tenant, requested: count/daskclusters.kubernetes.dask.org=1, '
                           "used: count/daskclusters.kubernetes.dask.org=3, "
                           "limited: count/daskclusters.kubernetes.dask.org=3")  # fmt: skip
    assert looks.operator().text.startswith("can't be tried: ")


def test_the_operator_takes_the_name_for_unusable():
    from dask_kubernetes.exceptions import ValidationError
    from dask_kubernetes.operator.validation import validate_cluster_name

    with pytest.raises(ValidationError):
        validate_cluster_name(f"doctor-{'0' * 52}")


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (MANY, "claim 'home', ?, shared by all nodes of a run"),
        (
            {"spec": {}, "status": {"phase": "Pending"}},
            "claim 'home' has no volume: it names no storage class, and no class is the default; ask",
        ),
        (
            {"spec": {"storageClassName": "x"}, "status": {"phase": "Pending"}},
            "claim 'home' has no volume: no volume fits;",
        ),
        (
            {"spec": {}, "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"]}},
            "claim 'home' can be used on one machine only (ReadWriteOnce); keep runs on one node",
        ),
        (None, "claim 'home' doesn't exist; stop the server and start it again"),
    ],
)
def test_the_home(wire, looks, claim, expected):
    if claim:
        wire.answers[f"{NAMESPACE}/persistentvolumeclaims/home"] = claim
    check = looks.home()
    assert check.text.startswith(expected)
    assert (check.state == "ok") == (claim is MANY)


def test_the_quota(wire, looks):
    hard = {"requests.nvidia.com/gpu": "4", "limits.memory": "64Gi", "pods": "64", "services.nodeports": "0"}
    status = {"hard": hard, "used": {"requests.nvidia.com/gpu": "2", "limits.memory": "16Gi", "pods": "1"}}
    wire.answers[f"{NAMESPACE}/resourcequotas"] = {"items": [{"status": status}]}
    assert said(looks.quota()) == ("ok", "2 GPUs, 48 GiB of memory, 63 pods left")
    status["used"]["requests.nvidia.com/gpu"] = "4"
    assert looks.quota().state == "wrong"
    status["hard"]["requests.nvidia.com/gpu"] = "0"
    status["used"]["requests.nvidia.com/gpu"] = "0"
    assert said(looks.quota()) == ("ok", "0 GPUs, 48 GiB of memory, 63 pods left")
    wire.answers[f"{NAMESPACE}/resourcequotas"] = {"items": []}
    assert looks.quota().text.startswith("none:")


def test_the_image(monkeypatch):
    monkeypatch.delenv("CNAI_IMAGE_REFERENCE", raising=False)
    assert cluster.image().state == "wrong"
    monkeypatch.setenv("CNAI_IMAGE_REFERENCE", "registry.example/cnai/notebook:1")
    assert cluster.image().text.startswith("registry.example/cnai/notebook:1 is a tag; ask your administrator")
    monkeypatch.setenv("CNAI_IMAGE_REFERENCE", f"registry.example/cnai/notebook@sha256:{'0' * 64}")
    assert cluster.image().state == "ok"


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


def test_forbidden_connections(listener, monkeypatch):
    """Ports of this machine stand for those of a cluster: one listens, one does not."""
    resolve = socket.getaddrinfo
    ours = {"proxy-public.cnai": "127.0.0.1", "proxy-api.cnai": "127.0.0.1"}
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more: resolve(ours.get(host, host), *more))
    listening, silent = listener[1], 1

    def look(proxy, api, metadata):
        monkeypatch.setenv("CNAI_HUB_URL", f"http://proxy-public.cnai:{proxy}/")
        monkeypatch.setattr(network, "PROXY_API", ("proxy-api", api))
        monkeypatch.setattr(network, "METADATA", ("127.0.0.1", metadata))
        return network.look()

    assert look(listening, silent, silent).text.startswith("enforced: ")
    assert look(listening, listening, silent).text.startswith("not enforced: the proxy's API (proxy-api.cnai:")
    assert look(listening, silent, listening).text.startswith("not enforced: the cloud's metadata (127.0.0.1:")
    # Silence proves nothing where nobody is known to listen.
    assert look(silent, silent, silent).state == "unknown"
    monkeypatch.delenv("CNAI_HUB_URL")
    assert network.look().state == "unknown"
