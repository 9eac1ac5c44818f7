"""References go into a catalog without touching anything else of it."""

import tomllib

from images import references

CATALOG = """\
# What people can start.
[[image]]
name = "torch"  # a comment
dockerfile = "notebook/Dockerfile"
default = true

[[image]]
name = "plain"
dockerfile = 'app/Dockerfile'
reference = "registry.invalid/app@sha256:0"  # of yesterday
[[flavor]]
name = "small"
dockerfile = "notebook/Dockerfile"
"""


def test_a_reference_is_added_and_replaced():
    written = references.write(
        CATALOG, {"notebook": "r/notebook@sha256:1", "app": "r/app@sha256:2", "hub": "r/hub@sha256:3"}
    )
    before, after = tomllib.loads(CATALOG), tomllib.loads(written)
    assert [image.pop("reference") for image in after["image"]] == ["r/notebook@sha256:1", "r/app@sha256:2"]
    del before["image"][1]["reference"]
    assert after == before
    assert set(CATALOG.splitlines()) - set(written.splitlines()) == {
        'reference = "registry.invalid/app@sha256:0"  # of yesterday'
    }


def test_what_was_not_built_stays():
    assert references.write(CATALOG, {"hub": "r/hub@sha256:3"}) == CATALOG


def test_writing_again_changes_nothing():
    once = references.write(CATALOG, {"notebook": "r/notebook@sha256:1"})
    assert references.write(once, {"notebook": "r/notebook@sha256:1"}) == once


def test_a_file_may_end_without_a_new_line():
    text = '[[image]]\ndockerfile = "app/Dockerfile"'
    assert tomllib.loads(references.write(text, {"app": "x"}))["image"] == [
        {"dockerfile": "app/Dockerfile", "reference": "x"}
    ]
