"""Only an app's own server can fetch its release; the tests use real tokens of a real hub."""

from __future__ import annotations

import json
from dataclasses import asdict

import httpx
import psutil
import pytest

from cnai.errors import HubError, UsageError
from cnai.publishing import apps
from cnai_hub.apps.releases import App, Store, read_app, read_release
from cnai_hub.apps.server import fetch
from hub.apps.conftest import write
from hub.realhub import PERSON


def token_of(hub, slug):
    """Return the token that the hub gave to an app's server."""
    wanted = str(Store(hub.home / "apps").folder(PERSON, slug))
    for process in psutil.process_iter():
        try:
            if "cnai_hub.apps.server" in (line := process.cmdline()) and wanted in line:
                return process.environ()["JUPYTERHUB_API_TOKEN"]
        except psutil.Error:
            continue
    raise AssertionError(f"no server of {slug} runs")


@pytest.fixture(scope="module")
def token(hub, app, guest):
    """The token of the app `squares`."""
    guest.get(app.url)  # starts the app if an earlier test has stopped it
    return token_of(hub, app.slug)


def asked(hub, token, slug="squares", method="GET", path="releases"):
    url = f"{hub.url}/services/apps/api/{path}/{slug}"
    return httpx.request(method, url, headers={"Authorization": f"token {token}"}, timeout=60)


def test_a_server_gets_the_release_that_it_serves(hub, app, token, tmp_path, monkeypatch):
    monkeypatch.setenv("CNAI_HOME", str(tmp_path))
    folder = fetch.fetch(f"{hub.url}/", token, PERSON, "app-squares")
    published = Store(hub.home / "apps").folder(PERSON, "squares")
    assert read_app(folder) == read_app(published)
    assert read_release(folder, app.version) == read_release(published, app.version)
    files = folder / "releases" / str(app.version) / "files"
    assert (files / "data" / "points.csv").read_text() == "1,2"
    assert [path.name for path in (folder / "releases").iterdir()] == [str(app.version)]


def test_a_server_gets_nothing_of_another_app(hub, terminal, token, tmp_path):
    apps.publish(write(tmp_path, "other.ipynb", "1"))
    assert asked(hub, token, "other").status_code == 403
    assert asked(hub, token_of(hub, "other"), "other").status_code == 200  # control: its own token works
    assert asked(hub, token_of(hub, "other")).status_code == 403
    apps.unpublish("other")


def test_an_apps_token_publishes_nothing(hub, token):
    assert asked(hub, token, method="DELETE", path="apps").status_code == 403
    for path in ("apps", "check"):
        assert httpx.get(f"{hub.url}/services/apps/api/apps", headers={"Authorization": f"token {token}"}).is_error
        answer = httpx.post(f"{hub.url}/services/apps/api/{path}", headers={"Authorization": f"token {token}"}, json={})
        assert answer.status_code == 403


def test_tokens_of_people_get_no_release(hub, app, api):
    """Not even the author's tokens: a token that opens the app must not give access to its release."""
    scopes = [[], ["read:users:name!user"], [f"access:servers!user={PERSON}"], ["access:services!service=apps"]]
    for wanted in scopes:
        made = api.post(f"users/{PERSON}/tokens", json={"scopes": wanted or None, "expires_in": 600}).json()
        assert asked(hub, made["token"]).status_code == 403, wanted
    for stranger in ("x", hub.secrets["workbench_token"]):
        assert asked(hub, stranger).status_code == 403


def test_who_may_open_an_app_may_not_have_its_release(hub, app, guest):
    """Guest's session has the same scope as the server's own token, but the app isn't guest's."""
    guest.get(f"/user/{PERSON}/app-squares/")
    for client in (guest, hub.login(PERSON)):
        assert client.get("/services/apps/api/releases/squares").status_code == 403  # cookies don't count as a token


@pytest.mark.parametrize("server", ["", "lab", "app-", "app-No Good"])
def test_a_server_that_is_no_app_fetches_nothing(server):
    with pytest.raises(HubError, match="is not an app's server"):
        fetch.fetch("http://127.0.0.1:9/", "x", PERSON, server)


def test_what_goes_wrong_is_one_sentence(hub, app, tmp_path, monkeypatch):
    monkeypatch.setenv("CNAI_HOME", str(tmp_path))
    with pytest.raises(HubError, match=r"could not be fetched \(403\); publish it again"):
        fetch.fetch(f"{hub.url}/", "x", PERSON, "app-squares")
    with pytest.raises(HubError, match=r"does not answer \(ConnectError\); open the app again"):
        fetch.fetch("http://127.0.0.1:9/", "x", PERSON, "app-squares")


def test_the_runs_of_a_release_are_where_the_notebook_looks(tmp_path, monkeypatch):
    monkeypatch.setenv("CNAI_HOME", str(tmp_path / "cnai"))
    monkeypatch.delenv("CNAI_STORE", raising=False)
    fetch.place_runs(tmp_path)  # no app: nothing to do
    (tmp_path / "releases" / "2" / "runs" / "fit-1").mkdir(parents=True)
    (tmp_path / "releases" / "2" / "runs" / "fit-1" / "result").write_text("x")
    app = App(owner="ada", slug="a", title="", created=1.0, published=1.0, current=2)
    (tmp_path / "app.json").write_text(json.dumps(asdict(app)))
    fetch.place_runs(tmp_path)
    assert (tmp_path / "cnai" / "runs" / "fit-1" / "result").read_text() == "x"


def test_what_was_sent_by_strangers_is_not_even_read(hub, app):
    """The token is checked before the body is accepted."""
    sent = httpx.post(f"{hub.url}/services/apps/api/apps", content=b"x" * 2**20, headers={"Authorization": "token x"})
    assert sent.status_code in (400, 403, 503)  # 503 is the proxy's answer if the service closes the connection


def test_a_request_that_is_no_bundle_is_refused_in_one_line(hub, app, terminal):
    from cnai.publishing import service as appservice

    body = (hub.home / "bundle").open("w+b")
    body.write(b"x" * 1000)
    with body, pytest.raises(UsageError, match="not a bundle of files"):
        list(appservice.send("api/apps", body))
