"""Apps in pods on a real cluster: published from a notebook's pod, opened by a share, and attacked by viewers."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import httpx
import hubpod
import pytest
from hubpod import PATIENCE_SECONDS, until
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

pytest.importorskip("dask_kubernetes", reason="the extra `kubernetes` is not installed")

from cnai_hub import tenants
from hub.apps.conftest import WIDGETS, facts_of, path_of
from hub.apps.wire import ABSENT, CHANNELS, PROTOCOLS, attacks, execute, kernel_of, wire

FACTS = """\
import json, os
import cnai, helper
print("FACTS" + json.dumps({
    "environment": sorted(os.environ),
    "home": sorted(os.listdir(os.path.expanduser("~"))),
    "folder": os.getcwd(),
    "token": os.path.exists("/var/run/secrets/kubernetes.io"),
    "kept": cnai.attach("kept").result(),
    "runs": [run.spec.name for run in cnai.runs()],
    "squared": helper.square(3),
    "data": open("data.csv").read(),
}) + "STCAF")"""

TRAIN = """\
def answer():
    return 6 * 7
button, shown = ipywidgets.Button(description="Train"), ipywidgets.Label("untrained")
def train(_):
    shown.value = f"trained {cnai.train(answer).result(300)}"
button.on_click(train)
display(button, shown)"""

# A run that the notebook shows, created without an engine, and one that it doesn't show. A run is reused only if its
# code is the same cell with the same modules next to it.
DOUBLE = """\
def double(x):
    return x * 2"""
RUNS = """\
import cnai
assert cnai.train(double, kwargs=dict(x=21), backend="debug", name="kept").result() == 42
cnai.train(double, kwargs=dict(x=1), backend="debug", name="private").result()"""
REUSE = """print("REUSED", cnai.train(double, kwargs=dict(x=21), reuse=True).spec.name)"""


class Server:
    """A notebook server in its pod, with a kernel."""

    def __init__(self, hub, name):
        self.hub, self.name = hub, name
        hub.start(name)
        hub.wait_ready(name)
        headers = {"Authorization": f"token {hub.token}"}
        self.http = httpx.Client(base_url=hub.url, headers=headers, timeout=PATIENCE_SECONDS)
        made = self.http.post(f"/user/{name}/api/kernels", json={"name": "python3"}).raise_for_status()
        self.channels = f"/user/{name}/api/kernels/{made.json()['id']}/channels"

    def reply(self, code, protocol="text", channel="shell"):
        """Run code; return its reply and its output."""
        with wire(self.http, self.channels, protocol) as kernel:
            sent = kernel.send(execute(code, channel))
            received = kernel.until("execute_reply", sent)
            ended = received[-1]["content"]
            while not any(_ends(each, sent) for each in received):  # output is sent on another channel
                received += kernel.until("status", sent)
        printed = [each["content"]["text"] for each in received if each["header"]["msg_type"] == "stream"]
        return ended, "".join(printed)

    def run(self, code):
        """Run code that must succeed; return its output."""
        ended, printed = self.reply(code)
        assert ended["status"] == "ok", (ended, printed)
        return printed


def _ends(received, sent):
    is_idle = received["content"].get("execution_state") == "idle"
    return is_idle and received["parent_header"].get("msg_id") == sent


@pytest.fixture(scope="module")
def hub(cluster, images):
    with hubpod.installed(cluster, images) as hub:
        yield hub


@pytest.fixture(scope="module")
def server(hub):
    """Ada's notebook server; its home has files that apps must not see."""
    server = Server(hub, hub.person("ada"))
    server.run("import os; os.makedirs('/home/cnai/work', exist_ok=True); os.chdir('/home/cnai/work')")
    server.run("open('helper.py', 'w').write('def square(x): return x * x'); open('data.csv', 'w').write('1,2')")
    server.run("open('/home/cnai/secret.txt', 'w').write('of the author')")
    for code in ("import helper", DOUBLE, RUNS):
        server.run(code)
    return server


def publish(server, slug, *sources, flags=""):
    """Publish a notebook with the magic, as authors do; return the output and the app."""
    cells = [new_markdown_cell("# Squares"), *map(new_code_cell, sources)]
    text = json.dumps(new_notebook(cells=cells))
    server.run(f"open('{slug}.ipynb', 'w').write({text!r})")
    line = f"%cnai publish {slug}.ipynb --slug {slug} {flags}"
    ended, printed = server.reply(f"%load_ext cnai\napp = {line}\nprint(repr(app))")
    assert ended["status"] == "ok", (ended, printed)
    return printed, SimpleNamespace(author=server.name, slug=slug)


@pytest.fixture(scope="module")
def published(hub, server):
    guest = hub.person("guest")
    return publish(server, "squares", FACTS, DOUBLE, REUSE, WIDGETS, TRAIN, flags=f"--share {guest} --include data.csv")


@pytest.fixture(scope="module")
def app(published):
    return published[1]


@pytest.fixture(scope="module")
def guest(hub):
    return hub.login(hub.person("guest"))


@pytest.fixture(scope="module")
def kernel(app, guest):
    return kernel_of(guest.get(path_of(app)).text)


@pytest.fixture(scope="module")
def pod(hub, app):
    """The app's pod, as the API server has it."""
    (found,) = [pod for pod in hub.pods(app.author) if pod["metadata"]["labels"].get("cnai.dev/role") == "app"]
    return found


def inside(hub, pod, code):
    """Run Python in a pod, which no viewer can do; return its output."""
    metadata = pod["metadata"]
    where = ["-n", metadata["namespace"], metadata["name"]]
    return hub.cluster.kubectl("exec", *where, "--", "python", "-c", code)


def test_the_author_reads_where_it_is(hub, published, guest):
    printed, app = published
    assert "running the notebook once: cell 2 of 6" in printed
    address = re.search(r"version 1, running\): (\S+)", printed)[1]
    assert address == f"{hub.url}/services/apps/open/{app.author}/squares"
    page = guest.get(address)
    assert (page.status_code, page.url.path) == (200, path_of(app))


def test_an_app_has_what_its_release_brings_and_nothing_of_its_author(app, guest):
    page = guest.get(path_of(app)).text
    assert "REUSED kept" in page
    facts = facts_of(page)
    assert (facts["kept"], facts["runs"]) == (42, ["kept"])
    assert (facts["squared"], facts["data"]) == (9, "1,2")
    assert not {"secret.txt", "work", "notebooks"} & set(facts["home"])
    assert facts["token"] is False
    assert not [name for name in facts["environment"] if "TOKEN" in name or "HUB" in name or name.startswith("JPY_API")]


def test_the_pod_is_without(pod):
    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    assert (spec["automountServiceAccountToken"], spec["serviceAccountName"]) == (False, "default")
    assert [set(volume) for volume in spec["volumes"]] == [{"name", "emptyDir"}] * len(spec["volumes"])
    assert "@sha256:" in container["image"]
    assert (container["resources"]["limits"]["cpu"], container["resources"]["limits"]["memory"]) == ("1", "2147483648")
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["securityContext"]["runAsNonRoot"] is True


def test_not_even_code_in_the_pod_reaches_the_api_server_or_the_home(hub, pod, server):
    asked = (
        "import os, ssl, urllib.request, urllib.error\n"
        "host = os.environ['KUBERNETES_SERVICE_HOST']\n"
        "def ask(path, token=''):\n"
        "    headers = {'Authorization': f'Bearer {token}'} if token else {}\n"
        "    request = urllib.request.Request(f'https://{host}{path}', headers=headers)\n"
        "    try: return urllib.request.urlopen(request, context=ssl._create_unverified_context()).status\n"
        "    except urllib.error.HTTPError as error: return error.code\n"
    )
    namespace = pod["metadata"]["namespace"]
    pods = f"/api/v1/namespaces/{namespace}/pods"
    assert inside(hub, pod, f"{asked}print(ask('{pods}'))").strip() in ("401", "403")
    with_token = f"{asked}print(ask('{pods}', open('/var/run/secrets/kubernetes.io/serviceaccount/token').read()))"
    assert server.run(with_token).strip() == "200"  # the control: a notebook has one
    found = inside(hub, pod, "import os; print([name for _, _, names in os.walk('/home/cnai') for name in names])")
    assert "app.json" in found
    assert "secret.txt" not in found
    assert "engine.json" not in found
    assert "private" not in inside(hub, pod, "import os; print(os.listdir('/home/cnai/cnai/runs'))")
    with pytest.raises(Exception, match="Read-only file system"):
        inside(hub, pod, "open('/opt/x', 'w')")


def test_the_token_of_the_pod_opens_nothing_else(hub, pod, server, app):
    """The token is in the server's process, where the author's code may find it."""
    variables = {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}
    headers = {"Authorization": f"token {variables['JUPYTERHUB_API_TOKEN']}"}
    publish(server, "other", "1")
    with httpx.Client(base_url=hub.url, headers=headers, timeout=60) as stolen:
        releases = "/services/apps/api/releases/"
        assert stolen.get(f"{releases}squares").status_code == 200  # the control
        assert stolen.get(f"{releases}other").status_code == 403
        assert stolen.get("/services/apps/api/apps").status_code == 403
        assert stolen.delete("/services/apps/api/apps/squares").status_code == 403
        assert stolen.post("/services/apps/api/apps", content=b"x").status_code == 403
        assert stolen.get("/hub/api/users").status_code == 403
        assert stolen.post(f"/hub/api/users/{app.author}/server").status_code in (403, 404)
        assert stolen.delete(f"/hub/api/users/{app.author}/server").status_code in (403, 404)
        assert stolen.get(f"/user/{app.author}/api/contents").status_code == 403
        assert stolen.get(f"{path_of(SimpleNamespace(author=app.author, slug='other'))}").status_code == 403
    server.run("%cnai unpublish other")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("channel", CHANNELS)
def test_a_viewer_runs_no_code(hub, app, pod, guest, kernel, protocol, channel):
    marker = f"/tmp/marker-{protocol}-{channel}"
    with wire(guest, f"{path_of(app)}api/kernels/{kernel}/channels", protocol) as viewer:
        viewer.information()
        for attempt in attacks(f"open({marker!r}, 'w').write('x')", channel):
            viewer.send(attempt)
        kinds = {received["header"]["msg_type"] for received in viewer.information()}
        viewer.information()  # the kernel is alive
    assert kinds <= {"status", "kernel_info_reply"}
    assert inside(hub, pod, f"import os; print(os.path.exists({marker!r}))").strip() == "False"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_same_client_runs_code_where_it_is_allowed(server, protocol):
    marker = f"/tmp/marker-{protocol}"
    server.reply(f"open({marker!r}, 'w').write('x')", protocol)
    assert server.run(f"import os; print(os.path.exists({marker!r}))").strip() == "True"


@pytest.mark.parametrize("route", ABSENT)
def test_what_a_notebook_server_has_is_not_there(app, guest, route):
    assert guest.get(path_of(app) + route).status_code in (403, 404)
    token = {"X-XSRFToken": guest.cookies.get("_xsrf", path=path_of(app))}
    assert guest.post(path_of(app) + route, headers=token, json={"name": "python3"}).status_code in (403, 404, 405)


@pytest.mark.parametrize(
    "file", ["helper.py", "squares.ipynb", "data.csv", "../release.json", "..%2F..%2F..%2Fapp.json"]
)
def test_files_of_the_release_are_not_served(app, guest, file):
    assert guest.get(f"{path_of(app)}voila/files/{file}").status_code in (403, 404)


def test_who_has_no_share_is_refused(hub, app, guest):
    assert guest.get(path_of(app)).status_code == 200  # the control
    grace = hub.login(hub.person("grace"))
    assert grace.get(path_of(app)).status_code == 403
    assert grace.get(f"/services/apps/open/{app.author}/{app.slug}").status_code == 404
    with httpx.Client(base_url=hub.url, timeout=60) as nobody:
        for route in ("", "voila/static/voila.js", "api/kernels/x"):
            assert nobody.get(path_of(app) + route, headers={"Sec-Fetch-Mode": "cors"}).status_code == 403


def test_guest_uses_the_app_in_a_browser(hub, app):
    chromium = pytest.importorskip("browser.chromium")
    name = hub.person("guest")
    with chromium.chromium() as browser:
        visitor = chromium.Visitor(browser, hub.url)
        page = visitor.login(name, hub.password(name), "/services/apps/")
        page.get_by_role("region", name="Squares").get_by_role("button", name="Open").click()
        page.get_by_text("squared: 0").wait_for(timeout=PATIENCE_SECONDS * 1000)
        page.locator(".noUi-handle").focus()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        page.get_by_text("squared: 9").wait_for()
        # A new training of an app runs in the app's own pod.
        page.get_by_role("button", name="Train").click()
        page.get_by_text("trained 42").wait_for(timeout=PATIENCE_SECONDS * 1000)
        assert visitor.outside == []
        visitor.context.close()


def test_nobody_brings_an_image_or_a_flavor_that_is_not_theirs(server):
    refused, _ = server.reply("%cnai publish squares.ipynb --flavor huge")
    assert re.fullmatch(r"unknown flavor 'huge' \(allowed: [\w, -]+\)", refused["evalue"])
    server.run(
        "import os; name = 'CNAI_IMAGE_REFERENCE'; kept = os.environ[name]; os.environ[name] = 'evil.example/miner'"
    )
    refused, _ = server.reply("%cnai publish squares.ipynb")
    assert "evil.example/miner, which is not image" in refused["evalue"]
    server.run("os.environ[name] = kept")


def test_an_app_that_does_not_start_says_why(hub, server):
    _, app = publish(server, "breaks", "1")
    hub.stop(app.author, "app-breaks")
    lost = f"/srv/cnai/apps/{app.author}/breaks/releases/1/files/breaks.ipynb"
    hub.kubectl("exec", "deployment/hub", "--", "chmod", "0", lost)
    hub.start(app.author, "app-breaks")
    until(lambda: not (hub.server(app.author, "app-breaks") or {}).get("pending"), "the start has failed")
    told = hub.api.get(f"/users/{app.author}/servers/app-breaks/progress").text
    assert "the app's release could not be fetched (500); publish it again" in told
    author = hub.login(app.author)
    author.get("/services/apps/")
    assert "could not be fetched" in author.get(f"/services/apps/state/{app.author}/breaks").json()["problem"]
    server.run("%cnai unpublish breaks")


def test_unpublishing_leaves_nothing(hub, server, app, guest):
    namespace = tenants.namespace_name(app.author)
    server.run("%cnai unpublish squares")
    until(
        lambda: (
            "app" not in hub.cluster.kubectl("get", "pods", "-n", namespace, "-l", "cnai.dev/role=app", "-o", "name")
        ),
        "the pod has gone",
    )
    assert hub.api.get(f"/users/{app.author}/servers/app-squares").status_code == 404
    assert guest.get(path_of(app)).status_code in (403, 404, 424)
    assert "squares" not in hub.kubectl("exec", "deployment/hub", "--", "ls", "-R", f"/srv/cnai/apps/{app.author}")
