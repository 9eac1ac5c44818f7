"""What pip is configured to here, a build is told; secrets are no files of others."""

import pytest

from images import sources

LISTED = """\
global.index-url='https://index.invalid/simple'
:env:.cert='/ca.pem'
global.extra-index-url='https://a.invalid\\nhttps://b.invalid'
:env:.index-url='https://mine.invalid/simple'
global.find-links='/wheels'
"""


@pytest.fixture
def listed(monkeypatch):
    answer = lambda *_, **__: type("Done", (), {"returncode": 0, "stdout": LISTED})  # noqa: E731
    monkeypatch.setattr(sources.subprocess, "run", answer)


def test_pips_configuration_becomes_a_secret(listed, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sources.secrets(tmp_path) == [f"--secret=id=pip,src={tmp_path}/pip.conf", "--secret=id=ca,src=/ca.pem"]
    assert (tmp_path / "pip.conf").read_text().splitlines() == [
        "[global]",
        "index-url = https://mine.invalid/simple",
        "extra-index-url = https://a.invalid https://b.invalid",
        "cert = /run/secrets/ca",
    ]
    assert tmp_path.stat().st_mode & 0o077 == 0
    (tmp_path / ".npmrc").write_text("")
    assert sources.secrets(tmp_path)[-1] == f"--secret=id=npm,src={tmp_path}/.npmrc"


def test_no_configuration_is_no_secret(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sources, "configuration", dict)
    assert sources.secrets(tmp_path) == []
