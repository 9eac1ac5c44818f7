"""Images are made parents first, packages only where they changed, and end with labels, a digest and a bill."""

import sys
import tomllib

import pytest

from images import __main__ as face
from images import chain, make
from images.engine import Engine


def options(told, name):
    return [word.partition("=")[2] for word in told if word.startswith(f"--{name}=")]


def test_packages_are_built_parents_first(programs):
    maker = make.Maker(Engine("docker"), base="debian.invalid/debian:12", torch_index="https://cpu.invalid")
    names = maker.packages(["notebook"])
    base, app, notebook = programs.told("build")
    assert [options(told, "file") for told in (base, app, notebook)] == [
        [f"images/{name}/Dockerfile"] for name in ("base", "app", "notebook")
    ]
    assert options(base, "build-arg") == ["BASE=debian.invalid/debian:12"]
    assert options(app, "build-arg") == [f"PARENT={names['base']}"]
    assert options(notebook, "build-arg") == [f"PARENT={names['app']}", "TORCH_INDEX=https://cpu.invalid"]
    assert [options(told, "tag") for told in (base, app, notebook)] == [[name] for name in names.values()]


def test_packages_that_are_here_are_not_built(programs):
    maker = make.Maker(Engine("buildah"))
    programs.have(maker.packages_name("base"), maker.packages_name("app"))
    maker.packages(["app", "hub"])
    assert [options(told, "file") for told in programs.told("build")] == [["images/hub/Dockerfile"]]


def test_fresh_packages_are_built_on_todays_debian(programs):
    maker = make.Maker(Engine("buildah"), fresh=True)
    programs.have(maker.packages_name("base"))
    maker.packages(["hub"])
    base, hub = programs.told("build")
    assert {"--no-cache", "--pull"} <= set(base)
    assert "--no-cache" in hub and "--pull" not in hub  # its parent is on this machine only


def test_another_base_or_index_makes_other_packages():
    makers = [
        make.Maker(Engine("docker")),
        make.Maker(Engine("docker"), base="b"),
        make.Maker(Engine("docker"), "", "b"),
    ]
    assert len({maker.packages_name("notebook") for maker in makers}) == len(makers)


def test_labels_say_what_it_is(monkeypatch):
    monkeypatch.setattr(make, "_git", lambda *words: "https://code.invalid/cnai" if "remote" in words else "abc-dirty")
    known = dict(label.removeprefix("--label=org.opencontainers.image.").split("=", 1) for label in make.labels("hub"))
    version = tomllib.loads((chain.ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {
        "title": "cnai hub",
        "version": version,
        "revision": "abc-dirty",
        "source": "https://code.invalid/cnai",
    }.items() <= known.items()
    for address in ("/home/me/cnai", "git@code.invalid:cnai", "https://me:secret@code.invalid/cnai"):
        monkeypatch.setattr(make, "_git", lambda *words, address=address: address)
        assert not [label for label in make.labels("hub") if "source" in label]


@pytest.fixture
def command(programs, monkeypatch, tmp_path):
    """`python -m images`, with a wheel that is not built."""
    monkeypatch.setattr(make, "wheel", lambda: tmp_path / "cnai-1.2.3-py3-none-any.whl")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["images", *words])
        face.main()

    return run


def test_the_command_pushes_and_writes_the_catalog(command, programs, tmp_path, capsys):
    catalog = tmp_path / "catalog.toml"
    catalog.write_text('[[image]]\nname = "torch"\ndockerfile = "notebook/Dockerfile"\n')
    command("base", "notebook", "--engine=buildah", "--registry=r.invalid/cnai", "--push-to=10.0.0.1:5000/cnai",
            f"--catalog={catalog}", f"--sbom={tmp_path / 'sbom'}")  # fmt: skip
    reference = f"r.invalid/cnai/notebook@{programs.digest}"
    assert tomllib.loads(catalog.read_text())["image"][0]["reference"] == reference
    assert capsys.readouterr().out.splitlines() == [f"r.invalid/cnai/base@{programs.digest}", reference]
    assert [told[-1] for told in programs.told("push")] == [
        f"docker://10.0.0.1:5000/cnai/{name}:1.2.3" for name in ("base", "notebook")
    ]
    assert sorted(path.name for path in (tmp_path / "sbom").iterdir()) == ["base.cdx.json", "notebook.cdx.json"]


def test_without_a_registry_nothing_is_pushed(command, programs, capsys):
    command("hub", "--tag=mine", "--engine=docker")
    assert capsys.readouterr().out == "localhost/cnai/hub:mine\n"
    assert programs.told("push", "tag") == []


def test_a_mistake_is_one_line(command, programs):
    with pytest.raises(
        SystemExit, match=r"^images: no image 'torch'; the images are: app, base, hub, notebook, notebook-gpu$"
    ):
        command("torch", "--engine=docker")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--catalog=images/catalog.toml"],
            "--catalog and --values write references of pushed images; name a registry with --registry",
        ),
        (
            ["--registry=r", "--catalog=missing.toml"],
            "--catalog: missing.toml is not a file; the usual one is .*catalog.toml",
        ),
    ],
)
def test_what_could_not_be_written_is_refused_at_once(command, programs, words, said):
    with pytest.raises(SystemExit, match=f"^images: {said}$"):
        command("base", "--engine=docker", *words)
    assert not programs.told("build")


@pytest.mark.usefixtures("starts_children")
def test_the_wheel_is_the_same_for_the_same_code(monkeypatch, tmp_path):
    monkeypatch.setattr(make, "WHEELS", tmp_path)
    first = make.wheel().read_bytes()
    content = make.content("packages")
    assert make.wheel().read_bytes() == first
    assert make.content("packages") == content != make.content("other packages")
