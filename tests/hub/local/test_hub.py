"""A real hub: logins, rights of its users, and refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cnai import catalog
from cnai_hub.local import links
from hub.realhub import CONFIG, GUEST, PERSON, RealHub, until, xsrf

ONLY_APPS = 403


@pytest.fixture
def stopped(hub, api):
    """Stop the person's server after the test."""
    yield
    if hub.server(api):
        hub.stop_server(api)


def test_the_person_arrives_at_their_servers(hub):
    client, page = hub.try_login(PERSON, hub.password(PERSON))
    assert page.url.path == "/hub/home"
    assert "<h1>Servers</h1>" in page.text
    assert 'href="/services/apps/"' in page.text
    assert client.get("/hub/admin").status_code == 200


def test_guest_arrives_at_the_apps(hub):
    client, page = hub.try_login(GUEST, hub.password(GUEST))
    assert page.url.path == "/services/apps/"
    assert page.status_code == 200
    home = client.get("/hub/home")
    assert "Servers" not in home.text
    assert "Token" not in home.text


@pytest.mark.parametrize("password", ["", "wrong", "ä" * 40, "x" * 100_000])
@pytest.mark.parametrize("name", [PERSON, GUEST, "nobody", "", "../x", "ä"])
def test_a_wrong_password_is_told_so(hub, name, password):
    client, page = hub.try_login(name, password)
    assert page.status_code == 403
    assert "Invalid username or password" in page.text
    assert client.get("/hub/home").url.path == "/hub/login"


def test_nobody_else_gets_in_with_the_passwords_of_others(hub):
    for name, password in [(GUEST, PERSON), (PERSON, GUEST), ("stranger", GUEST), ("stranger", PERSON)]:
        _, page = hub.try_login(name, hub.password(password))
        assert page.status_code == 403, (name, password)


def test_guest_has_no_server_and_no_token(hub, api):
    client = hub.login(GUEST)
    write = {"headers": {"X-XSRFToken": xsrf(client)}}
    assert client.get(f"/hub/spawn/{GUEST}").status_code == ONLY_APPS
    assert client.post(f"/hub/spawn/{GUEST}", params={"_xsrf": xsrf(client)}, data={}).status_code == ONLY_APPS
    assert client.get("/hub/admin").status_code == ONLY_APPS
    for path in (
        f"users/{GUEST}/server",
        f"users/{GUEST}/servers/more",
        f"users/{GUEST}/servers/app-x",
        f"users/{PERSON}/server",
        f"users/{PERSON}/servers/app-x",
        f"users/{GUEST}/tokens",
        f"users/{PERSON}/tokens",
        f"shares/{PERSON}/app-x",
        f"share-codes/{PERSON}/app-x",
        "users/another",
        "shutdown",
    ):
        answer = client.post(f"/hub/api/{path}", json={}, **write)
        assert answer.status_code in (ONLY_APPS, 404), (path, answer.status_code, answer.text)
    # Control: the same requests work for the person.
    made = hub.login(PERSON)
    assert made.post(f"/hub/api/users/{PERSON}/tokens", json={}, headers={"X-XSRFToken": xsrf(made)}).status_code == 201
    assert api.get(f"users/{GUEST}").json()["servers"] == {}


def test_guest_cannot_open_the_persons_server(hub, api, stopped):
    hub.spawn(api)
    page = hub.login(GUEST).get(f"/user/{PERSON}/lab")
    assert page.status_code in (403, 404)
    assert hub.login(PERSON).get(f"/user/{PERSON}/lab").status_code == 200


def test_a_page_is_refused_in_a_sentence(hub):
    client = hub.login(GUEST)
    page = client.get(f"/hub/spawn/{GUEST}")
    assert "This isn't open to you" in page.text.replace("&#39;", "'")
    assert "There is nothing here" in client.get("/hub/nothing").text


def test_no_page_names_another_host(hub):
    client = hub.login(PERSON)
    for path in ("/hub/home", f"/hub/spawn/{PERSON}", "/hub/nothing", f"/user/{PERSON}/lab"):
        page = client.get(path).text
        for attribute in ('src="http', "src='http", 'src="//', 'href="http', 'href="//', "@import", "url(http"):
            assert attribute not in page, (path, attribute)


def test_a_server_from_the_form_has_the_chosen_flavor(hub, api, stopped):
    client = hub.login(PERSON)
    form = client.get(f"/hub/spawn/{PERSON}").text
    assert 'name="image" value="torch"' in form
    assert 'name="flavor" value="small"' in form
    sent = client.post(
        f"/hub/spawn/{PERSON}", params={"_xsrf": xsrf(client)}, data={"image": "torch", "flavor": "small"}
    )
    assert sent.status_code == 200
    until(lambda: hub.server(api).get("ready"), "the server is ready")
    assert hub.server(api)["user_options"] == {"image": "torch", "flavor": "small"}
    environment = _environment(hub)
    assert environment["CNAI_FLAVOR"] == "small"
    assert environment["CNAI_IMAGE"] == "torch"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert environment["CNAI_HOME"] == str(hub.home)
    assert environment["PATH"].startswith(f"{Path(sys.executable).parent}:")  # `!pip` is the notebook's


def test_a_server_from_the_api_shows_the_persons_notebooks(hub, api, stopped):
    (hub.home / "notebooks" / "mine.txt").write_text("hello")
    assert hub.spawn(api, flavor="small").status_code in (201, 202)
    server = hub.login(PERSON)
    assert server.get(f"/user/{PERSON}/lab").status_code == 200
    listing = server.get(f"/user/{PERSON}/api/contents/")
    assert "mine.txt" in {item["name"] for item in listing.json()["content"]}
    assert {path.name for path in (hub.home / "notebooks").glob("*.ipynb")} >= {
        path.name for path in catalog.shipped("notebooks").glob("*.ipynb")
    }


REFUSED = [
    ({"image": "evil"}, "unknown image 'evil'"),
    ({"flavor": "huge"}, "unknown flavor 'huge'"),
    ({"cmd": "sh"}, "unknown option 'cmd'; allowed: image, flavor"),
    ({"flavor": "gpu4"}, "flavor 'gpu4' (16 CPU, 96 GiB, 4 GPU) can't be started here"),
]


@pytest.mark.parametrize(("options", "sentence"), REFUSED)
def test_the_api_refuses_in_a_sentence(hub, api, options, sentence):
    answer = hub.spawn(api, **options)
    assert answer.status_code == 400
    assert sentence in answer.json()["message"]


@pytest.mark.parametrize(("options", "sentence"), REFUSED)
def test_the_form_refuses_in_a_sentence_and_is_shown_again(hub, options, sentence):
    client = hub.login(PERSON)
    page = client.post(f"/hub/spawn/{PERSON}", params={"_xsrf": xsrf(client)}, data=options)
    text = page.text.replace("&#39;", "'")
    assert page.status_code == 400
    assert sentence in text
    assert 'name="flavor"' in text


@pytest.mark.parametrize("body", [{"flavor": ["small"]}, {"image": None, "flavor": 3}, {"flavor": {"a": {}}}])
def test_options_of_any_shape_are_refused_and_nothing_breaks(hub, api, body):
    answer = api.post(f"users/{PERSON}/server", json={"user_options": body})
    assert answer.status_code == 400
    assert "must be the name of one" in answer.json()["message"]


def test_a_refused_choice_is_not_remembered(hub, api, stopped):
    assert hub.spawn(api, image="evil").status_code == 400
    assert api.post(f"users/{PERSON}/server").status_code in (201, 202)
    until(lambda: hub.server(api).get("ready"), "the server is ready")


def test_an_app_that_was_never_published_is_no_notebook_server(hub, api):
    answer = hub.spawn(api, "app-never")
    assert answer.status_code == 400
    assert "ada has published no app 'never'" in answer.json()["message"]
    assert hub.spawn(api, "app-never", image="torch").status_code == 400


def test_a_server_may_have_a_name(hub, api):
    hub.spawn(api, "second", flavor="small")
    page = hub.login(PERSON).get("/hub/home").text
    assert 'data-server-name="second"' in page
    assert 'data-server-name="app-never"' not in page
    hub.stop_server(api, "second")


def test_the_servers_own_token_can_publish_and_little_else(hub, api, stopped):
    hub.spawn(api, flavor="small")
    own = hub.api_with(_environment(hub)["JUPYTERHUB_API_TOKEN"])
    assert own.get("user").json()["name"] == PERSON
    assert "access:services!service=apps" in own.get("user").json()["scopes"]
    assert own.post(f"users/{PERSON}/servers/another", json={}).status_code == ONLY_APPS
    assert own.post(f"users/{PERSON}/tokens", json={}).status_code == ONLY_APPS


def test_a_link_logs_the_person_in_once(hub):
    path = links.mint(hub.home / "hub", PERSON, "/hub/token")
    visitor = hub.visitor()
    page = visitor.get(path)
    assert page.url.path == "/hub/token"
    assert "no-store" in page.history[0].headers["Cache-Control"]
    # The same browser may follow it again; another one may not.
    assert visitor.get(path).url.path == "/hub/token"
    stranger = hub.visitor()
    page = stranger.get(path)
    assert page.status_code == 403
    assert "This link has expired or has already been used" in page.text
    assert stranger.get("/hub/home").url.path == "/hub/login"


def test_a_link_of_guest_makes_no_administrator(hub):
    visitor = hub.visitor()
    assert visitor.get(links.mint(hub.home / "hub", GUEST, "/hub/home")).status_code == 200
    assert visitor.get("/hub/admin").status_code == ONLY_APPS


def test_an_old_link_and_one_to_elsewhere_lead_nowhere(hub):
    old = links.mint(hub.home / "hub", PERSON, "/hub/token", lifetime_seconds=-1)
    assert hub.visitor().get(old).status_code == 403
    elsewhere = links.mint(hub.home / "hub", PERSON, "https://example.org/")
    visitor = hub.visitor()
    visitor.follow_redirects = False
    assert visitor.get(elsewhere).headers["Location"].startswith("/hub/")


@pytest.mark.parametrize("token", ["x" * 43, "..%2f..%2fcredentials.json", "a" * 4000])
def test_an_invented_link_logs_nobody_in(hub, token):
    visitor = hub.visitor()
    assert visitor.get(f"/hub/link/{token}").status_code in (403, 404)
    assert visitor.get("/hub/home").url.path == "/hub/login"


def test_a_port_in_use_ends_with_one_line(hub, tmp_path):
    environment = {**hub.environment, "CNAI_HOME": str(tmp_path / "other")}
    ended = subprocess.run(
        [sys.executable, "-m", "jupyterhub", "-f", str(CONFIG)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert ended.returncode != 0
    (line,) = [line for line in ended.stderr.splitlines() if "as root" not in line]
    assert (
        line
        == f"cnai: port {hub.port} is in use by another program; choose another one: CNAI_PORT={hub.port + 1} make run"
    )


@pytest.mark.usefixtures("starts_processes")
def test_a_hub_that_starts_again_knows_everything(tmp_path):
    hub = RealHub(tmp_path / "cnai").start()
    try:
        client, api = hub.login(PERSON), hub.api()
        hub.spawn(api, flavor="small")
        secrets = hub.secrets
        (hub.home / "notebooks" / "mine.txt").write_text("hello")
        server = _pid_of_server(api)
    finally:
        hub.stop()
    assert not Path(f"/proc/{server}").exists()
    again = RealHub(hub.home, hub.port).start()
    try:
        assert again.secrets == secrets
        assert client.get("/hub/home").url.path == "/hub/home"  # the same login still counts
        assert 'value="small" checked' in " ".join(client.get(f"/hub/spawn/{PERSON}").text.split())
        assert api.post(f"users/{PERSON}/server").status_code in (201, 202)
        until(lambda: again.server(api).get("ready"), "the server is ready")
        assert client.get(f"/user/{PERSON}/lab").status_code == 200
        listing = client.get(f"/user/{PERSON}/api/contents/").json()["content"]
        assert "mine.txt" in {item["name"] for item in listing}
    finally:
        again.stop()


def _pid_of_server(api) -> int:
    (pid,) = [
        server["state"]["pid"]
        for server in api.get(f"users/{PERSON}", params={"include_stopped_servers": ""}).json()["servers"].values()
    ]
    return pid


def _environment(hub) -> dict[str, str]:
    """Return the environment variables of the person's server."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            pairs = dict(pair.split("=", 1) for pair in path.read_bytes().decode().split("\0") if "=" in pair)
        except OSError:
            continue
        mine = pairs.get("JUPYTERHUB_USER") == PERSON and pairs.get("CNAI_HOME") == str(hub.home)
        if mine and "CNAI_FLAVOR" in pairs and not pairs.get("JUPYTERHUB_SERVER_NAME"):  # apps have a name
            return pairs
    raise AssertionError("the person has no server")
