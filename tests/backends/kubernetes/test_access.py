"""Who this process is to the API server, and whom it believes to be one, over real TLS."""

import json
import logging
import ssl
from types import SimpleNamespace

import pytest
from onenode import pki

from backends.apiserver import NAMESPACE, ApiServer
from cnai.backends.kubernetes import access, fleet
from cnai.backends.kubernetes.api import Api, Away, Refused
from cnai.errors import UsageError


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """The certificates of a cluster, and the kubeconfigs that go with them."""
    state = tmp_path_factory.mktemp("state")
    pki.write(SimpleNamespace(state=state))
    return state / "pki"


@pytest.fixture
def server(keys):
    """An API server with TLS that asks each client for a certificate, and takes one without."""
    server = ApiServer()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=keys / "ca.crt")
    context.load_cert_chain(keys / "apiserver.crt", keys / "apiserver.key")
    context.verify_mode = ssl.CERT_OPTIONAL
    server.socket = context.wrap_socket(server.socket, server_side=True)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def account(keys, tmp_path, monkeypatch, server):
    """What kubelet puts into a pod."""
    (tmp_path / "ca.crt").write_bytes((keys / "ca.crt").read_bytes())
    (tmp_path / "namespace").write_text(NAMESPACE)
    (tmp_path / "token").write_text("first\n")
    monkeypatch.delenv("CNAI_NAMESPACE", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_address[1]))
    # Its proxy is not for the cluster's own addresses.
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    return tmp_path


@pytest.fixture
def kubeconfig(keys, tmp_path, server):
    """A kubeconfig as administrators have it, written anew with each change of its user or cluster."""

    def write(user=None, cluster=None):
        config = pki.kubeconfig(keys, "admin")
        address = {"server": f"https://127.0.0.1:{server.server_address[1]}"}
        config["clusters"][0]["cluster"] |= {**address, **(cluster or {})}
        config["contexts"][0]["context"]["namespace"] = NAMESPACE
        if user is not None:
            config["users"][0]["user"] = user
        file = tmp_path / "kubeconfig"
        file.write_text(json.dumps(config))
        return file

    return write


def test_a_renewed_token_is_used_at_once(account, server):
    line = Api(access.of_pod(account))
    assert line.engines() == []
    (account / "token").write_text("second")
    line.engines()
    assert server.tokens == ["Bearer first", "Bearer second"]


def test_the_client_certificate_of_a_kubeconfig(kubeconfig, server):
    assert Api(access.of_kubeconfig(kubeconfig())).engines() == []
    assert server.tokens == [None]
    assert server.clients == ["admin"]


def test_files_that_a_kubeconfig_names_lie_beside_it(kubeconfig, keys, tmp_path, server):
    (tmp_path / "t").write_text("beside")
    (tmp_path / "c.crt").write_bytes((keys / "ca.crt").read_bytes())
    file = kubeconfig({"tokenFile": "t"}, {"certificate-authority-data": "", "certificate-authority": "c.crt"})
    assert Api(access.of_kubeconfig(file)).engines() == []
    assert server.tokens == ["Bearer beside"]


def test_a_server_that_another_authority_vouches_for(account, keys, server):
    (account / "ca.crt").write_bytes((keys / "front-ca.crt").read_bytes())
    with pytest.raises(Away, match=r"the API server does not answer \(ConnectError at https://127\.0\.0\.1:\d+\)"):
        Api(access.of_pod(account)).engines()
    assert server.asked == []


def test_a_kubeconfig_that_trusts_anyone(kubeconfig, server):
    anyone = kubeconfig({"token": "t"}, {"certificate-authority-data": "", "insecure-skip-tls-verify": True})
    assert Api(access.of_kubeconfig(anyone)).engines() == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, r"no Kubernetes here: \S+ can't be read \(No such file or directory\); start a server"),
        ("{", r"no Kubernetes here: \S+ is not a usable kubeconfig \(ParserError: .*--backend local"),
        ("", "is not a usable kubeconfig"),
        ("[]", "is not a usable kubeconfig"),
        ("current-context: x", r"is not a usable kubeconfig \(KeyError: 'contexts'\)"),
        ("current-context: x\ncontexts: []", r"is not a usable kubeconfig \(LookupError: no context 'x'\)"),
    ],
)
def test_an_unusable_kubeconfig_is_told_in_one_line(tmp_path, text, said):
    file = tmp_path / "config"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=said) as refused:
        access.of_kubeconfig(file)
    assert "\n" not in str(refused.value)


def test_a_login_by_a_program_is_refused_by_its_name(kubeconfig):
    file = kubeconfig({"exec": {"command": "aws"}})
    with pytest.raises(
        UsageError, match="kubeconfig authenticates with exec; allowed: token, tokenFile or client-certificate"
    ):
        access.of_kubeconfig(file)


def test_a_refusal_has_its_status(kubeconfig, server):
    line = Api(access.of_kubeconfig(kubeconfig({"token": "t"})))
    assert line.engine("none") is None
    with pytest.raises(Refused) as refused:
        line.ask("api/v1/nothing")
    assert (refused.value.status, refused.value.is_absent) == (404, False)


def test_questions_don_t_fill_the_log(kubeconfig, server, caplog):
    caplog.set_level(logging.INFO)
    file = kubeconfig({"token": "t"}, {"server": f"https://LOCALHOST:{server.server_address[1]}"})
    assert Api(access.of_kubeconfig(file)).engines() == []
    assert server.asked and caplog.records == []


def test_what_a_pod_has_not(tmp_path, monkeypatch, home):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(access, "ACCOUNT", tmp_path / "none")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"no Kubernetes here: \S+/\.kube/config can't be read"):
        fleet.standing("small-1")
