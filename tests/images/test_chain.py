"""Images inherit as their Dockerfiles say, and everything in them is pinned."""

import re

import pytest

from images import chain

KNOWN = chain.images()


def test_they_inherit():
    assert {name: image.parent for name, image in KNOWN.items()} == {
        "base": "", "app": "base", "hub": "base", "notebook": "app", "notebook-gpu": "notebook",
    }  # fmt: skip
    assert [image.name for image in chain.order(["notebook", "hub"], KNOWN)] == ["base", "app", "hub", "notebook"]


def test_an_unknown_image_is_one_line():
    with pytest.raises(chain.ImageError, match=r"^no image 'torch'; the images are: app, base, .*, notebook-gpu$"):
        chain.order(["torch"], KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_packages_are_pinned_with_hashes(name):
    text = KNOWN[name].dockerfile.read_text()
    installs = re.findall(r"pip install ([^&\n]*)", text.replace("\\\n", " "))
    installs = [options for options in installs if "TORCH_INDEX" not in options]
    assert len(installs) == len(KNOWN[name].locks) > 0
    for options in installs:
        assert {"--require-hashes", "--only-binary=:all:", "--no-deps", "--no-cache-dir"} <= set(options.split())
    for lock in KNOWN[name].locks:
        entries = re.split(r"\n(?=\S)", (chain.ROOT / lock).read_text().strip())
        assert all(re.match(r"[a-z0-9._-]+==\S+.*--hash=sha256:[0-9a-f]{64}", entry, re.DOTALL) for entry in entries)


def test_the_last_layer_is_the_code_and_nobody_is_root():
    text = (chain.CODE / "Dockerfile").read_text()
    last = text.split("\nFROM ")[-1].splitlines()
    assert last[0] == "${PACKAGES}"
    assert [line for line in last if line.startswith(("RUN", "COPY", "ADD"))] == ["COPY --from=code /code/ /"]
    assert last[-1] == "USER 1000:100"


def test_a_fingerprint_is_that_of_the_whole_line():
    before = {name: chain.fingerprint(name, KNOWN) for name in KNOWN}
    assert len(set(before.values())) == len(KNOWN)
    assert chain.fingerprint("app", KNOWN, ["other-base"]) != before["app"]
