"""Docker and Buildah are told the same; what they answer becomes a digest or one line. The programs are played."""

import json
import sys

import pytest

from images import chain, engine

DIGEST = "sha256:" + "a" * 64
PROGRAM = f"""\
#!{sys.executable}
import json, sys
from pathlib import Path
words = sys.argv[1:]
with open({{log!r}}, "a") as log:
    log.write(json.dumps([Path(sys.argv[0]).name, *words]) + "\\n")
if words[0] == "info":
    sys.exit({{broken}})
if words[0] == "build" and "--tag=x/fails" in words:
    sys.exit("no space left on device")
if words[0] == "inspect" and "RepoDigests" in str(words):
    print('["other.invalid/base@sha256:0", "r.invalid:5000/cnai/base@{DIGEST}"]')
elif words[0] == "inspect" and "missing" in words[-1]:
    sys.exit("no such image")
for word in words:
    if word.startswith("--digestfile="):
        Path(word.partition("=")[2]).write_text("{DIGEST}")
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Docker and Buildah that note what they are told; returns a function that reads it."""

    def make(name, broken=0):
        (tmp_path / name).write_text(PROGRAM.format(log=str(tmp_path / "log"), broken=broken))
        (tmp_path / name).chmod(0o755)

    make.told = lambda: [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    monkeypatch.setenv("PATH", str(tmp_path))
    make("docker")
    make("buildah")
    return make


def test_both_take_the_same_words_for_a_build(programs):
    for name in engine.ENGINES:
        known = engine.Engine(name, ("--secret=id=pip,src=/x",))
        known.build(chain.CODE / "Dockerfile", {"IMAGE": "base"}, "--target=sbom", "--output=type=local,dest=/o")
    docker, buildah = programs.told()
    assert docker[1:] == buildah[1:] == [
        "build", "--file=images/code/Dockerfile", "--build-arg=IMAGE=base", "--secret=id=pip,src=/x",
        "--target=sbom", "--output=type=local,dest=/o", ".",
    ]  # fmt: skip


def test_buildah_pushes(programs):
    known = engine.Engine("buildah", push_options=("--compression-format=zstd",))
    assert known.push("localhost/cnai/base:1", "r.invalid:5000/cnai/base:1") == DIGEST
    (told,) = programs.told()
    assert told[:3] == ["buildah", "push", "--quiet"]
    assert told[4:] == ["--compression-format=zstd", "localhost/cnai/base:1", "docker://r.invalid:5000/cnai/base:1"]


def test_docker_pushes(programs):
    assert engine.Engine("docker").push("localhost/cnai/base:1", "r.invalid:5000/cnai/base:1") == DIGEST
    assert programs.told() == [
        ["docker", "tag", "localhost/cnai/base:1", "r.invalid:5000/cnai/base:1"],
        ["docker", "push", "--quiet", "r.invalid:5000/cnai/base:1"],
        ["docker", "inspect", "--type=image", "--format={{json .RepoDigests}}", "r.invalid:5000/cnai/base:1"],
    ]


def test_what_is_here_is_known(programs):
    assert engine.Engine("docker").has("localhost/cnai/base:1")
    assert not engine.Engine("docker").has("localhost/cnai/missing:1")


def test_a_failing_build_ends_with_the_command(programs):
    with pytest.raises(chain.ImageError, match=r"^no space left on device\n`docker build .*` failed$"):
        engine.Engine("docker").build(chain.CODE / "Dockerfile", {}, "--tag=x/fails")


def test_the_engine_that_runs_is_taken(programs):
    assert engine.choose(None) == "docker"
    assert engine.choose("buildah") == "buildah"
    programs("docker", broken=1)  # the command without its service
    assert engine.choose(None) == "buildah"
    with pytest.raises(chain.ImageError, match=r"^docker doesn't run here; install docker or buildah"):
        engine.choose("docker")
