"""Images in the registry: shared layers, and a small layer of code; and the options of a build."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import tomllib
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from onenode.place import REGISTRY, REGISTRY_ADDRESS
from realcluster import alone

from images import chain, make, sources
from images.engine import Engine

KNOWN = chain.images()
MEBIBYTE = 2**20
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def fetch(reference: str, kind: str, name: str) -> dict[str, Any]:
    repository = reference.removeprefix(f"{REGISTRY}/").partition("@")[0]
    request = Request(f"http://{REGISTRY_ADDRESS}/v2/{repository}/{kind}/{name}", headers={"Accept": MANIFEST})
    with build_opener(ProxyHandler({})).open(request, timeout=60) as answer:
        return json.load(answer)


def manifest(reference: str) -> dict[str, Any]:
    return fetch(reference, "manifests", reference.partition("@")[2])


def layers(reference: str) -> list[str]:
    return [layer["digest"] for layer in manifest(reference)["layers"]]


@pytest.mark.parametrize("name", KNOWN)
def test_code_is_the_last_and_a_small_layer(own_cluster, images, name):
    *packages, code = manifest(images.built(name))["layers"]
    assert code["size"] < 3 * MEBIBYTE
    parent = layers(images.built(KNOWN[name].parent))[:-1] if KNOWN[name].parent else []
    assert [layer["digest"] for layer in packages][: len(parent)] == parent
    assert len(packages) - len(parent) <= 5


@pytest.mark.parametrize("name", KNOWN)
def test_an_image_says_what_it_is(own_cluster, images, name):
    found = fetch(images.built(name), "blobs", manifest(images.built(name))["config"]["digest"])["config"]
    assert found["User"] == "1000:100"
    assert found["Entrypoint"] == ["tini", "-g", "--"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in found["Labels"].items()}
    assert labels["title"] == f"cnai {name}"
    assert labels["version"] == tomllib.loads((chain.ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert labels["revision"]


def test_the_command_writes_what_it_pushed(own_cluster, images, tmp_path):
    images.built("app")  # its packages are there then
    catalog = tmp_path / "catalog.toml"
    catalog.write_text('[[image]]\nname = "apps"\ndockerfile = "app/Dockerfile"\n')
    words = ["app", "--engine=buildah", f"--base={own_cluster.base}", "--tag=test", f"--registry={REGISTRY}/cnai",
             f"--push-to={REGISTRY_ADDRESS}/cnai", f"--catalog={catalog}", f"--sbom={tmp_path}"]  # fmt: skip
    with alone("images"):  # two builds at once would write the same wheel
        done = subprocess.run(
            [sys.executable, "-m", "images", *words],
            cwd=chain.ROOT,
            env={**os.environ, **own_cluster.place.settings()},
            text=True,
            capture_output=True,
        )
    assert done.returncode == 0, done.stderr
    reference = tomllib.loads(catalog.read_text())["image"][0]["reference"]
    assert done.stdout == f"{reference}\n"
    assert layers(reference)[:-1] == layers(images.built("app"))[:-1]
    assert json.loads((tmp_path / "app.cdx.json").read_text())["bomFormat"] == "CycloneDX"


@pytest.fixture
def torch_index(tmp_path):
    """An index with an empty package of PyTorch, in the lock's version, built without CUDA."""
    lock = (chain.ROOT / "locks" / "image-torch.lock").read_text()
    version = next(line for line in lock.splitlines() if line.startswith("torch==")).split()[0].partition("==")[2]
    folder = tmp_path / "index" / "torch"
    folder.mkdir(parents=True)
    about = f"torch-{version}+cpu.dist-info"
    with zipfile.ZipFile(folder / f"torch-{version}+cpu-py3-none-any.whl", "w") as wheel:
        wheel.writestr("torch.py", "")
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}+cpu\n")
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "index")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_pytorch_without_cuda_leaves_all_of_cuda_out(own_cluster, images, torch_index, tmp_path):
    images.built("app")  # its packages are there then
    engine = Engine("buildah", tuple(sources.secrets(tmp_path)), settings=own_cluster.place.settings())
    maker = make.Maker(engine, own_cluster.base)
    app = maker.packages(["app"])["app"]
    name = f"{chain.LOCAL}/notebook:without-cuda"
    arguments = {"PARENT": app, "TORCH_INDEX": torch_index}
    engine.build(KNOWN["notebook"].dockerfile, arguments, f"--tag={name}", keep_layers=False)
    try:
        bill = json.loads(maker.sbom("notebook", name, tmp_path).read_text())
    finally:
        subprocess.run(["buildah", "rmi", name], env={**os.environ, **own_cluster.place.settings()}, check=True)
    named = [component["name"] for component in bill["components"]]
    assert [one["version"].partition("+")[2] for one in bill["components"] if one["name"] == "torch"] == ["cpu"]
    assert {"jupyterlab", "sympy"} <= set(named)
    assert [one for one in named if one.startswith(("nvidia", "cuda", "triton"))] == []
