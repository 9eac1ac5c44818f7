"""Environment variables: each is declared once, and read as its declaration says."""

from __future__ import annotations

import re
import subprocess

import psutil
import pytest

from cnai import environment
from cnai.backends.kubernetes import fleet
from cnai.backends.local import client as local
from cnai.environment import VARIABLES
from cnai.errors import UsageError
from literals import ROOT, literals

DECLARED = {variable.name for variable in VARIABLES}
HERE = {"extensions/cnai/environment.py", "tests/ground/test_environment.py", "docs/reference.md"}
WORD = re.compile(r"\bCNAI_[A-Z0-9_]*[A-Z0-9]\b")


def texts():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in set(listed) - HERE:
        if (ROOT / name).is_file() and not name.endswith((".png", ".lock")):
            yield name, (ROOT / name).read_text(errors="ignore")


def test_every_variable_of_the_repository_is_declared_and_used():
    found = {}
    for name, text in texts():
        for word in WORD.findall(text):
            found.setdefault(word, name)
    assert {word: name for word, name in found.items() if word not in DECLARED} == {}
    used = {
        each.group(1)
        for name, text in texts()
        if name.startswith(("extensions/", "hub/"))
        for each in re.finditer(r"\b(?:environment|variables)\.([A-Z_]+)", text)
    }
    declared = {attribute for attribute in vars(environment) if vars(environment)[attribute] in VARIABLES}
    ours = {each for each in declared if getattr(environment, each).setter != "tests"}
    assert ours - used == set()
    assert DECLARED - found.keys() - {getattr(environment, each).name for each in ours} == set()


def test_no_other_module_names_a_variable():
    found = {(name, text) for name, texts in literals().items() for text in texts if WORD.search(text)}
    assert {name for name, _ in found} == {"extensions/cnai/environment.py"}


def test_what_is_not_set_or_empty_has_its_default(monkeypatch):
    for given in (None, ""):
        for variable in VARIABLES:
            monkeypatch.delenv(variable.name, raising=False)
            if given is not None:
                monkeypatch.setenv(variable.name, given)
            assert variable.get() == variable.default


def test_backends_have_defaults_of_their_own(monkeypatch):
    for variable in (environment.NODE_SECONDS, environment.IDLE_SECONDS):
        monkeypatch.delenv(variable.name, raising=False)
    assert (environment.NODE_SECONDS.get(), fleet.node_seconds()) == (60, 600)
    assert (environment.IDLE_SECONDS.get(), fleet.idle_seconds()) == (3600, 60)
    monkeypatch.setenv(environment.NODE_SECONDS.name, "5")
    assert environment.NODE_SECONDS.get() == environment.NODE_SECONDS.get("kubernetes") == 5


@pytest.mark.parametrize("given", ["soon", "-1", "nan", "inf"])
def test_seconds_that_are_none_say_what_is_allowed(home, monkeypatch, given):
    monkeypatch.setenv("CNAI_IDLE_SECONDS", given)
    for read in (fleet.idle_seconds, local.launch):
        with pytest.raises(UsageError) as raised:
            read()
        assert str(raised.value) == f"CNAI_IDLE_SECONDS must be a number of seconds, 0 or more; given: {given!r}"


@pytest.mark.usefixtures("starts_processes")
def test_an_engine_has_nothing_of_the_server_that_starts_it(home, monkeypatch):
    theirs = {
        "JUPYTERHUB_API_TOKEN": "secret",
        "JPY_API_TOKEN": "secret",  # JupyterHub's old name of the same
        "CNAI_HUB_URL": "http://127.0.0.1:9/",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "CNAI_FLAVOR": "small",
        "OMP_NUM_THREADS": "1",
    }
    for name, value in {**theirs, "MINE": "kept"}.items():
        monkeypatch.setenv(name, value)
    try:
        found = psutil.Process(local.connect().status().pid).environ()
    finally:
        local.stop()
    assert found["MINE"] == "kept"
    assert {name for name in theirs if name in found} == {"CNAI_FLAVOR"}
