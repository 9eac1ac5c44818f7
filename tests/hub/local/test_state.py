"""The hub's state on disk: secrets, ports, one-time links, seeded notebooks."""

from __future__ import annotations

import json
import os
import socket
import stat

import pytest

from cnai.errors import CnaiError
from cnai_hub.apps.releases import Store
from cnai_hub.local import credentials, links, ports, processes
from cnai_hub.local.configuration import seed, state_dir


def test_secrets_are_made_once_and_only_their_owner_reads_them(state):
    first = credentials.load(state)
    assert credentials.load(state) == first
    assert (state / credentials.FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert len({first.person_password, first.guest_password, first.workbench_token}) == 3
    assert min(map(len, (first.person_password, first.guest_password, first.workbench_token))) >= 32
    assert first.person_password not in repr(first)


@pytest.mark.parametrize("damage", ["", "[]", '{"person_password": "x"}', "null"])
def test_damaged_secrets_say_what_to_do(state, damage):
    (state / credentials.FILE_NAME).write_text(damage)
    with pytest.raises(CnaiError, match=r"credentials\.json is damaged; delete it"):
        credentials.load(state)


def test_secrets_of_a_newer_version_are_read(state):
    first = credentials.load(state)
    file = state / credentials.FILE_NAME
    file.write_text(json.dumps(json.loads(file.read_text()) | {"proxy_token": "x"}))
    assert credentials.load(state) == first


@pytest.mark.parametrize("damage", ["", "[]", '{"person": "ada"}', '{"person": "ada", "expires": "never"}'])
def test_a_damaged_link_logs_nobody_in(state, damage):
    token = links.mint(state, "ada", "/user/ada/lab").split("/")[3].split("?")[0]
    (file,) = (state / "links").iterdir()
    file.write_text(damage)
    assert links.use(state, token) is None


def test_the_lock_names_the_workbench_that_runs(state):
    assert processes.running(state) is None
    with processes.only_one(state, "http://127.0.0.1:8000"):
        assert processes.running(state) == processes.Holder(pid=os.getpid(), url="http://127.0.0.1:8000")
    assert processes.running(state) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 7}', '{"pid": "7", "url": ""}'])
def test_a_lock_that_names_nobody_still_holds(state, text):
    with processes.only_one(state, "http://127.0.0.1:8000"):
        (state / "workbench.lock").write_text(text)
        assert processes.running(state) is None
        with pytest.raises(CnaiError, match=r"is already running; use it"), processes.only_one(state, ""):
            pass


def test_a_link_works_once(state):
    token = links.mint(state, "ada", "/user/ada/lab").split("/")[3].split("?")[0]
    assert links.use(state, token) == "ada"
    assert links.use(state, token) is None


def test_a_link_ends_by_itself(state):
    token = links.mint(state, "ada", "/", lifetime_seconds=-1).split("/")[3].split("?")[0]
    assert links.use(state, token) is None


def test_the_folder_of_links_gives_none_away(state):
    path = links.mint(state, "ada", "/user/ada/lab/tree/a b.ipynb")
    assert path.endswith("?next=/user/ada/lab/tree/a%20b.ipynb")
    token = path.split("/")[3].split("?")[0]
    (file,) = (state / "links").iterdir()
    assert token not in file.name + file.read_text()
    assert (state / "links").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("token", ["", "../credentials.json", "x" * 43, "x" * 5000, "%2e%2e", "é" * 43])
def test_what_is_no_link_logs_nobody_in(state, token):
    assert links.use(state, token) is None


def test_internal_ports_stay_while_they_are_free(state):
    first = ports.internal(state, ("hub", "proxy"))
    assert ports.internal(state, ("hub", "proxy")) == first
    with socket.socket() as taken:
        taken.bind((ports.LOOPBACK, first["hub"]))
        taken.listen()
        second = ports.internal(state, ("hub", "proxy"))
    assert second["proxy"] == first["proxy"]
    assert second["hub"] != first["hub"]


@pytest.mark.parametrize("text", ["", "[]", '{"hub": "x", "proxy": 0}', '{"hub": 99999, "proxy": -1}'])
def test_damaged_ports_are_chosen_anew(state, text):
    (state / "ports.json").write_text(text)
    chosen = ports.internal(state, ("hub", "proxy"))
    assert all(ports.is_free(port) for port in chosen.values())
    assert ports.internal(state, ("hub", "proxy")) == chosen


def test_a_port_in_use_says_what_to_do():
    with socket.socket() as taken:
        taken.bind((ports.LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CnaiError, match=f"port {port} is in use by another program; choose another one"):
            ports.claim(port)


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_others_look_into_no_folder_of_the_hub(tmp_path, monkeypatch, mask):
    monkeypatch.setenv("CNAI_HOME", str(tmp_path / "cnai"))
    for old in ("notebooks", "hub", "apps"):
        (tmp_path / "cnai" / old).mkdir(parents=True)
        (tmp_path / "cnai" / old).chmod(0o755)
    before = os.umask(mask)
    try:
        state = state_dir()
        seed(tmp_path / "cnai" / "notebooks", state)
        links.mint(state, "ada", "/")
        with Store(tmp_path / "cnai" / "apps").staging("ada", "digits") as stage:
            made = [stage, *stage.parents[: stage.parents.index(tmp_path)]]
            folders = [*made, state, state / "links", tmp_path / "cnai" / "notebooks"]
            modes = {str(folder): stat.S_IMODE(folder.stat().st_mode) for folder in folders}
    finally:
        os.umask(before)
    assert {folder: mode for folder, mode in modes.items() if mode != 0o700} == {}


def test_notebooks_are_seeded_once_and_never_over_the_persons_own(state, tmp_path, monkeypatch):
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    monkeypatch.setattr("cnai.paths._CHECKOUT", tmp_path)
    (tmp_path / "notebooks").symlink_to(shipped)
    for name in ("01.ipynb", "02.ipynb", "03.ipynb"):
        (shipped / name).write_text("shipped")
    work = tmp_path / "work"
    work.mkdir()
    (work / "01.ipynb").write_text("mine")

    seed(work, state)
    assert {path.name: path.read_text() for path in work.iterdir()} == {
        "01.ipynb": "mine",
        "02.ipynb": "shipped",
        "03.ipynb": "shipped",
    }
    (work / "02.ipynb").unlink()
    (work / "03.ipynb").write_text("changed")
    (shipped / "04.ipynb").write_text("shipped later")
    seed(work, state)
    assert {path.name: path.read_text() for path in work.iterdir()} == {
        "01.ipynb": "mine",
        "03.ipynb": "changed",
        "04.ipynb": "shipped later",
    }


@pytest.mark.parametrize("text", ["", "{}", "7", '["01.ipynb", 2]'])
def test_a_damaged_memory_of_notebooks_keeps_nobody_from_their_server(state, tmp_path, text):
    work = tmp_path / "work"
    seed(work, state)
    first, *others = sorted(work.iterdir())
    first.write_text("mine")
    others[0].unlink()
    (state / "seeded.json").write_text(text)
    seed(work, state)
    assert first.read_text() == "mine"
    assert others[0].exists()
    assert set(json.loads((state / "seeded.json").read_text())) == {path.name for path in work.iterdir()}
