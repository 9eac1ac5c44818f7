"""Docker and Buildah are told the same; what they answer becomes a digest or one line. The programs are played."""

import pytest

from images import chain, engine


def test_both_take_the_same_words_for_a_build(programs, tmp_path):
    out = f"--output=type=local,dest={tmp_path}"
    for name in engine.ENGINES:
        known = engine.Engine(name, ("--secret=id=pip,src=/x",))
        known.build(chain.CODE / "Dockerfile", {"IMAGE": "base"}, "--target=sbom", out)
    docker, buildah = programs.told()
    assert docker[1:] == buildah[1:] == [
        "build", "--file=images/code/Dockerfile", "--build-arg=IMAGE=base", "--secret=id=pip,src=/x",
        "--target=sbom", out, ".",
    ]  # fmt: skip


def test_buildah_pushes(programs):
    known = engine.Engine("buildah", push_options=("--compression-format=zstd",))
    assert known.push("localhost/cnai/base:1", "r.invalid:5000/cnai/base:1") == programs.digest
    (told,) = programs.told()
    assert told[:3] == ["buildah", "push", "--quiet"]
    assert told[4:] == ["--compression-format=zstd", "localhost/cnai/base:1", "docker://r.invalid:5000/cnai/base:1"]


def test_docker_pushes(programs):
    assert engine.Engine("docker").push("localhost/cnai/base:1", "r.invalid:5000/cnai/base:1") == programs.digest
    assert programs.told() == [
        ["docker", "tag", "localhost/cnai/base:1", "r.invalid:5000/cnai/base:1"],
        ["docker", "push", "--quiet", "r.invalid:5000/cnai/base:1"],
        ["docker", "inspect", "--type=image", "--format={{json .RepoDigests}}", "r.invalid:5000/cnai/base:1"],
    ]


def test_what_is_here_is_known(programs):
    programs.have("localhost/cnai/base:1")
    assert engine.Engine("docker").has("localhost/cnai/base:1")
    assert not engine.Engine("docker").has("localhost/cnai/missing:1")


def test_names_are_listed_and_removed(programs):
    known = engine.Engine("buildah")
    assert known.tags("localhost/cnai/base") == ["newest", "older"]
    known.remove("localhost/cnai/base:older")
    assert programs.told() == [
        ["buildah", "images", "--format={{.Tag}}", "--filter=reference=localhost/cnai/base:*"],
        ["buildah", "rmi", "localhost/cnai/base:older"],
    ]


def test_a_failing_build_ends_with_the_command(programs):
    with pytest.raises(chain.ImageError, match=r"^no space left on device\n`docker build .*` failed$"):
        engine.Engine("docker").build(chain.CODE / "Dockerfile", {}, "--tag=x/fails")


def test_the_engine_that_runs_is_taken(programs):
    assert engine.choose(None) == "docker"
    assert engine.choose("buildah") == "buildah"
    programs.breaks("docker")  # the command is there, its service is not
    assert engine.choose(None) == "buildah"
    with pytest.raises(chain.ImageError, match=r"^docker doesn't run here; install docker or buildah"):
        engine.choose("docker")
