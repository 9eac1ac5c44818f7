"""Another account of the same machine reads nothing of ours, and has nothing of its own run by us."""

from __future__ import annotations

import http.client
import os
import stat
from pathlib import Path

import psutil
import pytest

import cnai
from cnai.backends.local import client as local
from cnai.engine.store import Store
from cnai.errors import StoreError, UnknownName
from cnai_hub.local.configuration import state_dir
from cnai_hub.seeding import seed
from run import accounts
from run.waiting import until

WAIT = 90
DASKS_DEFAULT = "dask-scratch-space"
PAGES = ("/individual-plots.json", "/info/main/workers.html", "/health", "/sitemap.json", "/metrics", "/")

PLANT = """
mkdir -p "$1/$2" && chmod 777 "$1/$2" && cd "$1/$2" || exit 1
for each in */; do mv "$each" "taken-${each%/}"; mkdir "$each"; cp "$3" "$each/bokeh.py"; done
cp "$3" bokeh.py
"""
"""Put a module into Dask's default scratch folder and in the place of every folder that somebody has there."""


@pytest.fixture
def our_umask(starts_processes):
    """Files of ours are readable for everybody, as on most machines."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def temporary(reachable, monkeypatch):
    """A folder for temporary files that all accounts share, as /tmp is."""
    folder = reachable / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def shared_home(reachable, monkeypatch, our_umask):
    """A home that was made when nobody thought of others: they can reach and read all of it."""
    home = reachable / "cnai"
    for folder in ("engine", "runs", "notebooks", "hub"):
        (home / folder).mkdir(parents=True)
    (home / "notebooks" / "mine.ipynb").write_text("{}")
    monkeypatch.setenv("CNAI_HOME", str(home))
    monkeypatch.delenv("CNAI_STORE", raising=False)
    yield home
    # One that still imports torch would create torch's folder again.
    running = processes() if local.running() else []
    local.stop()
    assert not psutil.wait_procs(running, timeout=WAIT)[1]


def processes():
    """Return the engine's processes while no run has ranks: scheduler, node, and what they keep warm."""
    until(lambda: local.connect().status().nodes, "the node is connected")
    scheduler = psutil.Process(local.connect().status().pid)
    return [scheduler, *scheduler.children(recursive=True)]


def listening():
    return {
        connection.laddr
        for process in processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def answers(port, page):
    """Tell whether something speaks HTTP there."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        line.request("GET", page)
        line.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        line.close()
    return True


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_engine_listens_on_loopback_only(own_engine):
    assert {address.ip for address in listening()} == {"127.0.0.1"}


def test_the_engine_answers_no_http(own_engine):
    ports = {address.port for address in listening()}
    assert ports
    assert [(port, page) for port in ports for page in PAGES if answers(port, page)] == []


def test_dask_keeps_its_files_in_a_folder_of_ours(temporary, own_engine, home):
    locks = [Path(file.path) for process in processes() for file in process.open_files()]
    folders = {path.parent for path in locks if path.suffix == ".dirlock"}
    assert folders == {home / "engine" / DASKS_DEFAULT}
    assert {mode(folder) for folder in folders} == {0o700}
    assert not (temporary / DASKS_DEFAULT).exists()


def test_torch_runs_no_code_from_the_folder_for_temporary_files(engine, engine_home):
    def where():
        from torch._inductor.runtime.cache_dir_utils import cache_dir

        return cache_dir()

    assert cnai.train(where).result(WAIT) == str(engine_home / "engine" / "torchinductor")


@accounts.needed
def test_nothing_of_another_account_is_imported(temporary, shared_home, tmp_path):
    marker = temporary / "imported"
    module = temporary / "bokeh.py"
    module.write_text(f"open({str(marker)!r}, 'w').close()\nraise ImportError('bokeh')\n")
    assert accounts.as_another(PLANT, temporary, DASKS_DEFAULT, module).returncode == 0
    ports = {address.port for address in listening()}
    assert accounts.as_another(PLANT, temporary, DASKS_DEFAULT, module).returncode == 0
    for port in ports:
        for page in PAGES:
            answers(port, page)
    assert not marker.exists()


@accounts.needed
def test_another_account_reads_nothing_of_ours(shared_home):
    def speak():
        print("a secret")
        return 42

    run = cnai.train(speak)
    assert run.result(WAIT) == 42
    seed(shared_home / "notebooks", state_dir())
    folder = shared_home / "runs" / run.id
    files = [folder / name for name in ("payload", "result", "events.jsonl", "spec.json", "logs/gen-0/rank-0.log")]
    files += [shared_home / "engine" / "engine.json", shared_home / "notebooks" / "mine.ipynb"]
    assert [file for file in files if not file.is_file()] == []
    (shared_home.parent / "open").write_text("")
    assert accounts.as_another('cat "$1"', shared_home.parent / "open").returncode == 0
    assert [file for file in files if accounts.as_another('cat "$1"', file).returncode == 0] == []
    for name in ("", "engine", "runs", "notebooks", "hub"):
        assert accounts.as_another('ls "$1"', shared_home / name).returncode != 0
    shared_home.chmod(0o755)  # each is closed, not only the home around them
    assert [file for file in files if accounts.as_another('cat "$1"', file).returncode == 0] == []


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_all_folders_are_private_whatever_the_umask(home, mask):
    before = os.umask(mask)
    try:
        run = cnai.train(lambda: 1, name="one")
        assert run.result(WAIT) == 1
        seed(home / "notebooks", state_dir())
    finally:
        os.umask(before)
        local.stop()
    folders = [home, *(home / name for name in ("engine", "runs", "notebooks", "hub")), home / "runs" / run.id]
    assert {str(folder.relative_to(home)): mode(folder) for folder in folders if mode(folder) != 0o700} == {}


@accounts.needed
def test_runs_of_another_account_are_not_ours(reachable, home, monkeypatch, our_umask):
    store = reachable / "store"
    store.mkdir()
    store.chmod(0o1777)
    monkeypatch.setenv("CNAI_STORE", str(store))
    mine = cnai.train(lambda: 1, name="mine", backend="debug")
    theirs = mine.id.replace("mine", "theirs")
    copy = 'mkdir "$2" && cp -r "$1/." "$2" && chmod 755 "$2"'
    template = reachable / "template"
    template.mkdir()
    for name in ("spec.json", "record.json", "payload"):
        (template / name).write_bytes((store / mine.id / name).read_bytes())
    done = accounts.as_another(copy, template, store / theirs)
    assert (done.returncode, done.stderr) == (0, "")
    assert mode(store) == 0o777 | stat.S_ISVTX
    assert accounts.as_another('ls "$1"', store / mine.id).returncode != 0
    assert [run.id for run in cnai.runs()] == [mine.id]
    with pytest.raises(UnknownName, match="unknown run"):
        cnai.attach(theirs)
    with pytest.raises(StoreError, match=f"no run {theirs}"):
        Store(store).folder(theirs)
