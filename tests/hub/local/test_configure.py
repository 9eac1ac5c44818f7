"""The configuration of `jupyterhub_config.py`, and the values that `configure` refuses."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from traitlets.config import Config

import cnai_hub
from cnai import environment
from cnai.paths import shipped
from cnai_hub.local import account, credentials, ports, proxy
from cnai_hub.local.account import person_name
from cnai_hub.local.configuration import state_dir
from hub.realhub import free_port

pytestmark = pytest.mark.usefixtures("starts_children")


@pytest.fixture
def configured(state):
    """A filled configuration, and the port in it."""
    config, port = Config(), free_port()
    cnai_hub.configure(config, port=port, person="ada")
    return config, port


def test_servers_run_no_compiled_code_from_the_folder_for_temporary_files(configured, state):
    config, _ = configured
    assert config.Spawner.environment["TORCHINDUCTOR_CACHE_DIR"] == f"{state.parent}/engine/torchinductor"


def test_servers_ask_nothing_of_the_outside(configured):
    config, _ = configured
    first = Path(config.Spawner.environment["JUPYTER_CONFIG_PATH"].split(os.pathsep)[0])
    assert json.loads((first / "labconfig" / "default_setting_overrides.json").read_text())


def test_everything_listens_on_loopback_and_lives_in_the_home(configured, state):
    config, port = configured
    internal = ports.internal(state, ("hub", "proxy"))
    secrets = credentials.load(state)
    hub = dict(config.JupyterHub)
    viewer = hub.pop("template_vars")["viewer"]
    assert viewer("me") == "me"
    assert callable(hub.pop("default_url"))
    services, roles = hub.pop("services"), hub.pop("load_roles")
    assert hub == {
        "bind_url": f"http://127.0.0.1:{port}/",
        "hub_ip": "127.0.0.1",
        "hub_port": internal["hub"],
        "db_url": f"sqlite:///{state}/jupyterhub.sqlite",
        "cookie_secret_file": f"{state}/cookie_secret",
        "pid_file": f"{state}/hub.pid",
        "proxy_class": "configurable-http-proxy",
        "authenticator_class": "cnai_hub.local.login.LocalAuthenticator",
        "spawner_class": "cnai-local",
        "allow_named_servers": True,
        "redirect_to_server": False,
        "template_paths": [str(shipped("templates/hub"))],
        "load_groups": {"creators": {"users": ["ada"]}},
    }
    assert dict(config.ConfigurableHTTPProxy) == {
        "api_url": f"http://127.0.0.1:{internal['proxy']}",
        "command": proxy.command(),
        "pid_file": f"{state}/proxy.pid",
        "log_level": "error",
    }
    assert dict(config.Authenticator) == {
        "admin_users": {"ada"},
        "allowed_users": {"guest"},
        "allow_existing_users": False,
    }
    assert dict(config.SharedPasswordAuthenticator) == {
        "admin_password": secrets.person_password,
        "user_password": secrets.guest_password,
    }
    assert {service["name"] for service in services} >= {"workbench", "apps"}
    assert all("url" not in service or service["url"].startswith("http://127.0.0.1:") for service in services)
    (user,) = (role for role in roles if role["name"] == "user")
    assert user["scopes"] == ["read:users!user", "users:shares!user", "access:services!service=apps"]


def test_servers_are_notebook_servers_of_this_python(configured, state):
    config, _ = configured
    assert config.Spawner.cmd == [sys.executable, "-m", "jupyterhub.singleuser"]
    assert config.Spawner.notebook_dir == str(state.parent / "notebooks")
    assert ("--allow-root" in config.Spawner.args) == (os.geteuid() == 0)


def test_the_state_is_nobody_elses(configured, state):
    assert state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"port": 80}, "cnai: port 80 can't be used; choose one between 1024 and 65535 with CNAI_PORT"),
        ({"person": "guest"}, "cnai: the person can't be 'guest', which only opens apps"),
    ],
)
def test_what_cannot_be_ends_with_one_line(state, arguments, sentence):
    with pytest.raises(SystemExit) as end:
        cnai_hub.configure(Config(), **{"port": free_port(), "person": "ada", **arguments})
    assert str(end.value).startswith(sentence)
    assert "\n" not in str(end.value)


def test_a_disk_that_takes_no_more_ends_with_one_line(state, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device", str(state / "credentials.part"))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(SystemExit) as end:
        cnai_hub.configure(Config(), port=free_port(), person="ada")
    todo = "free space there, or choose another folder with CNAI_HOME"
    assert str(end.value) == f"cnai: No space left on device below {state.parent}; {todo}"


@pytest.mark.parametrize("name", ["50%", "why?", "{a}"])
def test_a_folder_that_jupyterhub_would_misread_is_refused(state, tmp_path, name):
    with pytest.raises(SystemExit, match="can't be cnai's folder because its path contains"):
        cnai_hub.configure(Config(), home=tmp_path / name, port=free_port(), person="ada")


@pytest.mark.parametrize("given", ["eighty", "-1", "8000.0", " "])
def test_a_port_that_is_no_number_says_what_is_allowed(monkeypatch, given):
    monkeypatch.setenv("CNAI_PORT", given)
    with pytest.raises(Exception, match="CNAI_PORT must be a number between 1024 and 65535"):
        environment.PORT.get()


def test_the_person_is_the_account_or_who_was_named(monkeypatch):
    monkeypatch.delenv("CNAI_PERSON", raising=False)
    assert person_name() == account.account_name().lower()
    monkeypatch.setenv("CNAI_PERSON", "Ada.Lovelace")
    assert person_name() == "ada.lovelace"
    monkeypatch.setenv("CNAI_PERSON", "a/b c")
    with pytest.raises(Exception, match="'a/b c' can't be a login name"):
        person_name()


def test_the_state_folder_is_closed_again_when_it_was_opened(state):
    state.chmod(0o755)
    assert state_dir().stat().st_mode & 0o777 == 0o700


def _program(folder, name, text):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_an_old_node_is_named_and_so_is_what_to_do(tmp_path, monkeypatch):
    _program(tmp_path / "bin", "node", "echo 16.4.1 /usr/bin/node")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(proxy, "_packaged_node", lambda: None)
    with pytest.raises(Exception, match=r"Node\.js 16 is too old; the proxy needs 20 or newer"):
        proxy.node()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(Exception, match=r"Node\.js is missing; the proxy needs 20 or newer"):
        proxy.node()


def test_behind_a_wrapper_the_real_node_is_started(tmp_path, monkeypatch):
    _program(tmp_path / "bin", "node", "echo 22.1.0 /opt/real/node")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert proxy.node() == "/opt/real/node"


def test_an_old_node_gives_way_to_the_packaged_one(tmp_path, monkeypatch):
    _program(tmp_path / "bin", "node", "echo 16.4.1 /usr/bin/node")
    packaged = _program(tmp_path / "packaged", "node", "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(proxy, "_packaged_node", lambda: packaged)
    assert proxy.node() == str(packaged)
