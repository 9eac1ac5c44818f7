"""Ranks have the environment of the kernel that starts their run, whoever started the engine."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest

import cnai
from cnai import environment
from cnai.errors import UsageError

WAIT = 120
NAMES = ("API_KEY", "SET_LATER", "TZ", "TMPDIR", "OMP_NUM_THREADS", "JUPYTERHUB_API_TOKEN", "MPLBACKEND", "LATER")


def look():
    import sys
    import tempfile

    import torch

    seen = {name: os.environ.get(name) for name in NAMES}
    return seen | {
        "offset": time.localtime(0).tm_gmtoff,
        "temporary": tempfile.gettempdir(),
        "threads": torch.get_num_threads(),
        "path": [folder for folder in sys.path if "of_the_kernel" in folder or "/of/notebook/A" in folder],
    }


def test_each_run_has_the_environment_of_the_kernel_that_starts_it(home, starts_processes, monkeypatch, tmp_path):
    from cnai.backends.local import client as local

    key = os.urandom(8).hex()  # not in the text of this file, which travels
    monkeypatch.setenv("API_KEY", key)
    monkeypatch.setenv("PYTHONPATH", "/of/notebook/A")
    try:
        first = cnai.train(look, env={"LATER": "given"})
        seen = first.result(WAIT)
        assert (seen["API_KEY"], seen["LATER"], seen["path"]) == (key, "given", ["/of/notebook/A"])
        monkeypatch.delenv("API_KEY")
        changed = {"SET_LATER": "yes", "TZ": "Asia/Tokyo", "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "3"}
        secrets = {"JUPYTERHUB_API_TOKEN": "secret", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        for name, value in {**changed, **secrets, "PYTHONPATH": "of_the_kernel"}.items():
            monkeypatch.setenv(name, value)
        seen = cnai.train(look).result(WAIT)
        assert seen == {
            **dict.fromkeys(NAMES),
            **changed,
            "offset": 9 * 3600,
            "temporary": str(tmp_path),
            "threads": 3,
            "path": [f"{os.getcwd()}/of_the_kernel"],
        }
    finally:
        local.stop()
    # What is on disk: the values in one file that only its owner can open.
    folder = home / "runs" / first.id
    file = folder / "environment"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["given"] == {"LATER": "given"}
    others = [path for path in folder.rglob("*") if path.is_file() and path != file and path.name != "result"]
    assert [path for path in others if key.encode() in path.read_bytes()] == []
    assert '"given"' not in (folder / "spec.json").read_text() + repr(cnai.run.find(first.id).spec)
    assert cnai.run.find(first.id).spec.env == {"LATER": "given"}


SERVICES = {"DB_SERVICE_HOST": "10.0.0.1", "DB_PORT": "tcp://10.0.0.1:1", "DB_PORT_1_TCP_ADDR": "10.0.0.1"}
RUN = {
    **SERVICES,
    "KEY": "mine",
    "USER_TOKEN": "mine, although it begins as USER does",
    "REDIS_PORT": "6379",
    "PATH": "/home/bin",
    "HOME": "/home/ada",
    "HF_HOME": "/home/ada/hf",
    "CUDA_VISIBLE_DEVICES": "3",
    "CUDA_LAUNCH_BLOCKING": "1",
    "LD_LIBRARY_PATH": "/home/lib",
    "https_proxy": "http://proxy:1",
    "OMP_NUM_THREADS": "2",
    "TZ": "UTC",
}
NODE = {
    "PATH": "/node/bin",
    "HOME": "/node",
    "NVIDIA_VISIBLE_DEVICES": "all",
    "DASK_WORKER_NAME": "w",
    "CNAI_ENGINE": "e",
}


def test_the_docs_name_what_stays_with_the_node():
    text = (Path(__file__).resolve().parents[2] / "docs" / "reference.md").read_text()
    section = text.partition("# The environment of the ranks")[2].partition("\n# ")[0]
    names = {f"{name}*" if name.endswith("_") else name for name in environment.OF_THE_MACHINE}
    assert [name for name in names if f"`{name}`" not in section] == []


def test_on_another_machine_the_nodes_own_variables_stay():
    here = environment.for_ranks(NODE, RUN, here=True)
    assert here == {**RUN, "CNAI_ENGINE": "e"}
    left_out = {*SERVICES, "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"}
    elsewhere = environment.for_ranks({**NODE, "OMP_NUM_THREADS": "1", "JPY_API_TOKEN": "secret"}, RUN, here=False)
    expected = {name: value for name, value in {**RUN, **NODE}.items() if name not in left_out}
    del expected["DASK_WORKER_NAME"]
    assert elsewhere == expected


def test_a_servers_limits_stay_but_what_its_author_changes_travels():
    server = {"CNAI_FLAVOR": "small", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    assert environment.for_run(server, at_start=server) == {}
    assert environment.for_run({**server, "OMP_NUM_THREADS": "4"}, at_start=server) == {"OMP_NUM_THREADS": "4"}
    shell = {"OMP_NUM_THREADS": "4", "MPLBACKEND": "Agg", "CNAI_STORE": "/runs", "CNAI_RUN_ID": "x"}
    assert environment.for_run(shell, at_start=shell) == {
        "OMP_NUM_THREADS": "4",
        "MPLBACKEND": "Agg",
        "CNAI_STORE": "/runs",
    }


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"N": 4}, "env['N'] must be text; given: a int; write str(…) around it"),
        ({"N": None}, "env['N'] must be text; given: a NoneType; write str(…) around it"),
        ({"N": "a\0b"}, "env['N'] must be text without NUL characters; take them out"),
        ({"": "x"}, "a name in env must be text without '='; given: ''"),
        ({"A=B": "x"}, "a name in env must be text without '='; given: 'A=B'"),
        ({4: "x"}, "a name in env must be text without '='; given: 4"),
        (["N=4"], "env must be a dict of names and text, such as {'N': '4'}; given: list"),
    ],
)
def test_variables_that_no_process_can_have(home, given, why):
    with pytest.raises(UsageError) as raised:
        cnai.train(look, env=given)
    assert str(raised.value) == why
    assert not (home / "runs").exists() or not list((home / "runs").iterdir())
