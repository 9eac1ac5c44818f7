"""Docker and Buildah, played: they note what they are told and have the images that a test says they have."""

import json
import sys

import pytest

DIGEST = "sha256:" + "a" * 64
PROGRAM = f"""\
#!{sys.executable}
import json, sys
from pathlib import Path
here = Path(sys.argv[0])
words = sys.argv[1:]
with open(here.parent / "told", "a") as told:
    told.write(json.dumps([here.name, *words]) + "\\n")
if words[0] == "info":
    sys.exit((here.parent / f"{{here.name}}-is-broken").exists())
if words[0] == "images":
    print("newest\\nolder")
if words[0] == "build" and "--tag=x/fails" in words:
    sys.exit("no space left on device")
if words[0] == "inspect" and "RepoDigests" in str(words):
    repository = words[-1].rpartition(":")[0]
    print(json.dumps(["other.invalid/base@sha256:0", repository + "@{DIGEST}"]))
elif words[0] == "inspect" and words[-1] not in (here.parent / "has").read_text().split():
    sys.exit("no such image")
for word in words:
    if word.startswith("--digestfile="):
        Path(word.partition("=")[2]).write_text("{DIGEST}")
    if word.startswith("--output=type=local,dest="):
        Path(word.rpartition("=")[2], "sbom.json").write_text("{{}}")
"""


class Programs:
    digest = DIGEST

    def __init__(self, folder):
        self._folder = folder
        self.have()
        for name in ("docker", "buildah"):
            (folder / name).write_text(PROGRAM)
            (folder / name).chmod(0o755)

    def have(self, *images):
        (self._folder / "has").write_text("\n".join(images))

    def breaks(self, name):
        (self._folder / f"{name}-is-broken").touch()

    def told(self, *verbs):
        """All that they were told, or what followed these verbs."""
        told = self._folder / "told"
        lines = [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []
        return [line for line in lines if not verbs or line[1] in verbs]


@pytest.fixture
def programs(tmp_path, monkeypatch, starts_children):
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return Programs(folder)
