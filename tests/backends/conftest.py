"""What the tests of the Kubernetes backend share: an API server at the wire, and what a notebook's pod has."""

import pytest

from backends.apiserver import ApiServer
from cnai.catalog import Catalog, Flavor, Image

REFERENCE = "registry.example/cnai/notebook@sha256:" + "0" * 64
OFFERED = Catalog(
    (
        Image(name="torch", title="PyTorch", reference=REFERENCE, default=True),
        Image(name="bare", title="Not built yet"),
    ),
    (
        Flavor(name="small", title="Small", cpu=2, memory_gib=4),
        Flavor(name="gpu", title="GPU", cpu=4, memory_gib=16, gpus=2),
    ),
)


@pytest.fixture
def server(tmp_path, monkeypatch, home):
    """An API server, and the environment of a notebook's pod that uses it."""
    from cnai.backends.kubernetes import api

    server = ApiServer()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(server.kubeconfig())
    for key in ("CNAI_NAMESPACE", "CNAI_NODE_SECONDS", "CNAI_IDLE_SECONDS"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setenv("CNAI_BACKEND", "kubernetes")
    monkeypatch.setenv("CNAI_CATALOG", OFFERED.to_json())
    monkeypatch.setenv("CNAI_FLAVOR", "small")
    monkeypatch.setenv("CNAI_IMAGE_REFERENCE", REFERENCE)
    home.mkdir()
    yield server
    api._connected.pop(str(kubeconfig), None)
    server.shutdown()
    server.server_close()
