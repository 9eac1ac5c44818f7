"""Forbidden actions of an app's viewers, really attempted; as a control, the same client runs code where it may."""

from __future__ import annotations

import pytest
from jupyterhub.singleuser.extension import JupyterHubOAuthCallbackHandler
from tornado.web import RequestHandler, StaticFileHandler
from traitlets.config import Config
from voila.app import Voila
from voila.voila_kernel_manager import voila_kernel_manager_factory
from websockets.exceptions import InvalidStatus

from cnai_hub.apps.releases import App, Release
from cnai_hub.apps.server import voila as server
from cnai_hub.apps.server.gate import Gate
from cnai_hub.apps.server.kernels import ViewerKernels
from cnai_hub.apps.server.messages import ViewerConnection
from cnai_hub.apps.server.room import MOST_PAGES
from hub.apps.conftest import path_of
from hub.apps.wire import ABSENT, CHANNELS, PROTOCOLS, attacks, execute, kernel_of, wire
from hub.realhub import PERSON

# One path for each of Voila's routes.
ROUTES = [
    "",
    "voila/static/voila.js",
    "voila/templates/lab/static/index.css",
    "voila/api/themes/@jupyterlab/theme-light-extension/index.css",
    "voila/labextensions/anywidget/package.json",
    "voila/files/picture.png",
    "voila/api/shutdown/{kernel}",
    "api/kernels/{kernel}",
    "api/kernels/{kernel}/channels",
    "static/base/images/logo.png",
]


@pytest.fixture(scope="module")
def kernel(app, guest):
    """A kernel of guest's."""
    return kernel_of(guest.get(path_of(app)).text)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("channel", CHANNELS)
def test_a_viewer_runs_no_code(app, guest, kernel, tmp_path, protocol, channel):
    marker = tmp_path / "marker"
    with wire(guest, f"{path_of(app)}api/kernels/{kernel}/channels", protocol) as open_wire:
        open_wire.information()
        for attempt in attacks(f"open({str(marker)!r}, 'w').write('x')", channel):
            open_wire.send(attempt)
        kinds = {received["header"]["msg_type"] for received in open_wire.information()}
        open_wire.information()  # the kernel is alive
    assert not marker.exists()
    assert kinds <= {"status", "kernel_info_reply"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_same_client_runs_code_where_it_is_allowed(hub, api, tmp_path, protocol):
    if not hub.server(api):
        hub.spawn(api)
    base = f"/user/{PERSON}/api/kernels"
    made = api.post(hub.url + base, json={"name": "python3"}).json()
    for channel in ("shell", "control"):
        marker = tmp_path / f"marker-{channel}"
        with wire(api, f"{base}/{made['id']}/channels", protocol) as lab:
            lab.until("execute_reply", lab.send(execute(f"open({str(marker)!r}, 'w').write('x')", channel)))
        assert marker.exists()
    api.delete(f"{hub.url}{base}/{made['id']}")


@pytest.mark.parametrize("route", ROUTES)
def test_nobody_gets_anything_without_a_login(app, hub, kernel, route):
    with hub.visitor() as visitor:
        visitor.headers["Sec-Fetch-Mode"] = "cors"
        url = path_of(app) + route.format(kernel=kernel)
        for method in ("GET", "POST", "DELETE"):
            assert visitor.request(method, url, follow_redirects=False).status_code in (403, 405), (method, route)
        visitor.headers["Sec-Fetch-Mode"] = "navigate"
        page = visitor.get(url, follow_redirects=False)
        assert page.status_code in (302, 403)
        assert "/hub/api/oauth2/authorize" in page.headers.get("Location", "/hub/api/oauth2/authorize")


def test_nobody_gets_a_websocket_without_a_login(app, hub, kernel):
    with hub.visitor() as visitor, pytest.raises(InvalidStatus) as refused:
        wire(visitor, f"{path_of(app)}api/kernels/{kernel}/channels").__enter__()
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("route", ROUTES)
def test_who_has_no_share_gets_nothing(app, hub, api, kernel, route):
    """A user's token without access to this app."""
    made = api.post(f"users/{PERSON}/tokens", json={"scopes": ["read:users:name!user"], "expires_in": 600}).json()
    with hub.visitor() as visitor:
        visitor.headers["Authorization"] = f"token {made['token']}"
        assert visitor.get(path_of(app) + route.format(kernel=kernel), follow_redirects=False).status_code == 403


@pytest.mark.parametrize("spell", [lambda kernel: kernel, lambda kernel: f"%{ord(kernel[0]):02x}{kernel[1:]}"])
def test_another_viewers_kernel_is_out_of_reach(app, guest, author, kernel, spell):
    assert guest.get(f"{path_of(app)}api/kernels/{kernel}").status_code == 200
    token = {"X-XSRFToken": _xsrf_of(author, app)}
    assert author.get(f"{path_of(app)}api/kernels/{spell(kernel)}").status_code in (403, 404)
    assert author.post(f"{path_of(app)}voila/api/shutdown/{spell(kernel)}", headers=token).status_code == 403
    with pytest.raises(InvalidStatus):
        wire(author, f"{path_of(app)}api/kernels/{spell(kernel)}/channels").__enter__()
    assert guest.get(f"{path_of(app)}api/kernels/{kernel}").status_code == 200


def _xsrf_of(client, app):
    client.get(path_of(app))  # sets the cookie
    return client.cookies.get("_xsrf", path=path_of(app))


def test_a_viewer_ends_their_own_kernel_when_they_leave(app, guest):
    own = kernel_of(guest.get(path_of(app)).text)
    token = {"X-XSRFToken": guest.cookies.get("_xsrf", path=path_of(app))}
    assert guest.delete(f"{path_of(app)}api/kernels/{own}", headers=token).status_code == 405
    assert guest.post(f"{path_of(app)}voila/api/shutdown/{own}", headers=token).status_code == 204
    assert guest.get(f"{path_of(app)}api/kernels/{own}").status_code == 404


@pytest.mark.parametrize("route", ABSENT)
def test_what_a_notebook_server_has_is_not_there(app, guest, route):
    answer = guest.get(path_of(app) + route)
    assert answer.status_code in (403, 404), route
    token = {"X-XSRFToken": guest.cookies.get("_xsrf", path=path_of(app))}
    assert guest.post(path_of(app) + route, headers=token, json={"name": "python3"}).status_code in (403, 404, 405)


@pytest.mark.parametrize(
    "file", ["helper.py", "My squares.ipynb", "data/points.csv", "../release.json", "..%2Frelease.json"]
)
def test_files_of_the_release_that_are_no_pictures_are_not_served(app, guest, file):
    assert guest.get(f"{path_of(app)}voila/files/{file}").status_code in (403, 404)


def test_a_viewer_can_choose_neither_template_nor_theme(app, guest):
    plain = guest.get(path_of(app)).text
    chosen = guest.get(path_of(app) + "?template=reveal&theme=dark").text
    assert "cnai-bar" in chosen
    assert "reveal" not in chosen
    assert chosen.count("theme-dark") == plain.count("theme-dark")


@pytest.fixture
def voila(tmp_path, monkeypatch):
    """An app server that doesn't listen."""
    app = App(owner="ada", slug="demo", title="Demo", created=1.0, published=1.0, current=1)
    release = Release(number=1, notebook="a.ipynb", author="ada", created=1.0)
    files = tmp_path / "releases" / "1" / "files"
    files.mkdir(parents=True)
    (files / "a.ipynb").write_text("{}")
    config = server.configuration(
        app, release, tmp_path, url="http://127.0.0.1:1234", prefix="/user/ada/app-demo/", apps_url="/services/apps/"
    )
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "x")
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada/app-demo/")
    activity = server.Activity("http://127.0.0.1:1/", "x", "app-demo")
    made = server.AppServer(hub_auth=server.HubOAuth(api_token="x"), activity=activity, config=config)
    made.initialize([])
    made.connection_dir = str(tmp_path)
    return made, made.init_settings(), made.init_handlers()


def test_every_route_is_behind_the_gate(voila):
    """This also covers routes that a later Voila may add."""
    _, settings, routes = voila
    open_routes = [handler for _, handler, *_ in routes if not issubclass(handler, Gate)]
    assert open_routes == [JupyterHubOAuthCallbackHandler]
    assert len(routes) >= 9
    assert all(handler.prepare is Gate.prepare for _, handler, *_ in routes if handler not in open_routes)
    assert settings["allow_unauthenticated_access"] is False


def test_voila_is_set_as_the_gate_expects(voila):
    made, settings, _ = voila
    assert (made.ip, made.port, made.port_retries) == ("127.0.0.1", 1234, 0)
    assert made.root_dir == str(made.notebook_path).rpartition("/")[0]
    options = made.voila_configuration
    assert (options.allow_template_override, options.allow_theme_override) == ("NO", "NO")
    assert (options.show_tracebacks, options.strip_sources, options.preheat_kernel) == (False, True, False)
    assert isinstance(settings["kernel_manager"], ViewerKernels)
    assert settings["kernel_manager"].cull_idle_timeout == server.IDLE_SECONDS
    assert settings["kernel_manager"].room.most == MOST_PAGES
    assert settings["kernel_websocket_connection_class"] is ViewerConnection
    assert "shutdown_request" not in settings["kernel_manager"].allowed_message_types
    assert made.template_paths[0].endswith("templates/voila/cnai")


def test_no_configuration_file_reaches_an_app(voila, tmp_path, monkeypatch):
    made, _, _ = voila
    assert made.config_file_paths == []


def test_upstream_still_has_what_the_gate_hooks_into():
    """cnai_hub.apps overrides or calls these names; the test must fail with a Voila that doesn't have them."""
    for name in ("setup_template_dirs", "init_settings", "init_handlers", "listen"):
        assert callable(getattr(Voila, name)), name
    assert issubclass(voila_kernel_manager_factory(ViewerKernels, False, 0), ViewerKernels)
    assert StaticFileHandler.check_xsrf_cookie is RequestHandler.check_xsrf_cookie
    assert Config(server.waking())["AsyncKernelManager"]["client_factory"].__name__ == "WakingClient"
