"""Publish, list, publish again and unpublish with a real hub, as `%cnai publish` does."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import replace

import httpx
import pytest

from cnai.errors import HubError, UnknownName, UsageError
from cnai.publishing import apps
from cnai_hub.apps import conditions
from cnai_hub.apps.releases import Store, read_release
from hub.apps.conftest import facts_of, path_of, write
from hub.apps.wire import execute, wire
from hub.realhub import GUEST, PERSON, until, xsrf
from run.oldruns import finished_run


@pytest.fixture
def folder(terminal, tmp_path):
    return tmp_path


@pytest.fixture
def store(hub):
    return Store(hub.home / "apps")


def listed(client):
    """Return the apps on a user's Apps page."""
    return re.findall(r'data-key="([^"]+)"', client.get("/services/apps/").text)


def test_an_app_answers_with_what_its_notebook_shows(hub, app, guest):
    assert app.state == "running"
    assert (app.slug, app.title, app.author) == ("squares", "Squares & <b>more</b>", PERSON)
    page = guest.get(app.url)
    assert (page.status_code, page.url.path) == (200, path_of(app))
    facts = facts_of(page.text)
    assert facts["helped"] == 9
    assert facts["data"] == "1,2"
    assert facts["home"] == str(hub.home)
    assert facts["folder"] == str(hub.home / "apps" / PERSON / "squares" / "releases" / str(app.version) / "files")


def test_the_apps_kernel_knows_nothing_of_the_hub(app, guest):
    environment = facts_of(guest.get(path_of(app)).text)["environment"]
    assert "CNAI_HOME" in environment
    assert [
        name for name in environment if "HUB" in name or "TOKEN" in name or name.startswith(("JPY_API", "CONFIGP"))
    ] == []


def test_sources_stay_with_the_author(app, guest):
    page = guest.get(path_of(app)).text
    assert "a source that viewers must not see" not in page
    assert "helper.square" not in page
    assert "FACTS" in page  # the page has the outputs


def test_a_title_is_text(app, guest):
    page = guest.get(path_of(app)).text
    assert "Squares &amp; &lt;b&gt;more&lt;/b&gt;" in page
    assert "<b>more</b>" not in page


def test_a_release_holds_what_the_notebook_needs_and_no_more(app, store):
    release = read_release(store.folder(PERSON, "squares"), app.version)
    assert release.files == ("My squares.ipynb", "data/points.csv", "helper.py")
    assert release.packages["voila"].startswith("0.5")
    assert release.author == PERSON


def test_the_apps_page_lists_what_one_may_open(app, guest, author):
    assert f"{PERSON}/squares" in listed(guest)
    assert f"{PERSON}/squares" in listed(author)
    page = guest.get("/services/apps/").text
    assert "Squares &amp; &lt;b&gt;more&lt;/b&gt;" in page
    assert f"by {PERSON}" in page
    assert "Unpublish" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_who_is_not_named_gets_nothing(folder, guest):
    mine = apps.publish(write(folder, "mine.ipynb", "'for me'"))
    assert f"{PERSON}/mine" not in listed(guest)
    assert guest.get(path_of(mine)).status_code == 403
    for path in ("state", "open"):
        assert guest.get(f"/services/apps/{path}/{PERSON}/mine").status_code == 404
    token = {"X-XSRFToken": guest.cookies.get("_xsrf", path="/services/apps/")}
    assert guest.post(f"/services/apps/start/{PERSON}/mine", headers=token).status_code == 404
    assert guest.post(f"/services/apps/unpublish/{PERSON}/mine", headers=token).status_code == 404
    assert guest.post(f"/services/apps/unpublish/{PERSON}/squares", headers=token).status_code in (403, 404)
    apps.unpublish("mine")


def test_publishing_again_makes_a_new_version_and_leaves_the_app_shared(folder, store, guest):
    first = apps.publish(write(folder, "again.ipynb", "'one ' + 'two'"), share=[GUEST])
    assert guest.get(path_of(first)).status_code == 200
    second = apps.publish(write(folder, "again.ipynb", "'three ' + 'four'"), title="Once more")
    assert (first.version, second.version) == (1, 2)
    assert (second.title, second.share) == ("Once more", (GUEST,))
    page = guest.get(path_of(second)).text
    assert "three four" in page
    assert "one two" not in page
    apps.unpublish("again")


def test_only_an_explicit_share_takes_the_app_from_people_and_says_so(folder, store, guest):
    shared = apps.publish(write(folder, "taken.ipynb", "1"), share=[GUEST])
    said = []
    taken = apps.publish(write(folder, "taken.ipynb", "2"), private=True, progress=said.append)
    assert taken.share == ()
    assert f"no longer shared with {GUEST}" in said
    assert guest.get(path_of(shared)).status_code == 403
    assert f"{PERSON}/taken" not in listed(guest)
    apps.unpublish("taken")


def test_a_person_who_has_left_the_hub_keeps_nobody_from_publishing_again(folder, api):
    api.post("users/leaver")
    apps.publish(write(folder, "left.ipynb", "1"), share=["leaver", GUEST])
    api.delete("users/leaver")
    assert apps.publish(write(folder, "left.ipynb", "2")).version == 2
    apps.unpublish("left")


def test_a_notebook_never_replaces_the_app_of_another_one_by_accident(folder, store):
    one, two = folder / "one", folder / "two"
    one.mkdir()
    two.mkdir()
    apps.publish(write(one, "report.ipynb", "'one'"))
    link = folder / "link.ipynb"
    link.symlink_to(one / "report.ipynb")
    for other in (write(two, "report.ipynb", "'two'"), write(folder, "Report!.ipynb", "'three'")):
        with pytest.raises(UsageError) as refused:
            apps.publish(other)
        assert str(refused.value) == (
            f"app 'report' was published from {one / 'report.ipynb'}; given: {other}; "
            "add --slug NAME to publish another app, or --replace to replace that one"
        )
    assert store.get(PERSON, "report").current == 1
    assert apps.publish(link, slug="report").version == 2  # the same notebook by another path
    moved = apps.publish(two / "report.ipynb", replace=True)
    assert (moved.version, store.get(PERSON, "report").source) == (3, str(two / "report.ipynb"))
    apps.unpublish("report")


def test_an_app_shows_the_runs_that_it_was_published_with(hub, folder, guest):
    """Also if the author trains again; the next version shows the new run."""
    notebook = write(folder, "pinned.ipynb", "import cnai\nprint('shows', cnai.attach('pinned').id)")
    finished_run(hub.home / "runs", "pinned-first", name="pinned", created=time.time())
    first = apps.publish(notebook, share=[GUEST])
    finished_run(hub.home / "runs", "pinned-second", name="pinned", created=time.time())
    assert "shows pinned-first" in guest.get(path_of(first)).text
    second = apps.publish(notebook)
    assert "shows pinned-second" in guest.get(path_of(second)).text
    apps.unpublish("pinned")


def test_the_trial_runs_under_the_apps_own_conditions(folder, monkeypatch, author):
    """Variables, umask and folder of the author's process don't reach the trial."""
    source = (
        "import json, os, pathlib\n"
        "os.umask(mask := os.umask(0))\n"
        "where = 'app' if 'CNAI_RELEASE' in os.environ else 'trial'\n"
        f"seen = pathlib.Path({str(folder)!r}, where)\n"
        "can_write = os.access('.', os.W_OK)\n"
        "more = {'umask': mask, 'folder': os.listdir(), 'can write': can_write}\n"
        "seen.write_text(json.dumps(dict(os.environ) | more))"
    )
    monkeypatch.setenv("MY_KEY", "x")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    old = os.umask(0o077)
    try:
        app = apps.publish(write(folder, "conditions.ipynb", source))
    finally:
        os.umask(old)
    assert author.get(path_of(app)).status_code == 200
    apps.unpublish("conditions")
    own = {"CNAI_RELEASE", "CNAI_RUNS_TAKEN", "CNAI_STORE", "JPY_PARENT_PID"}
    trial, app = (
        {name: value for name, value in json.loads((folder / where).read_text()).items() if name not in own}
        for where in ("trial", "app")
    )
    visit = conditions.A_VISIT.keys()
    assert {name: trial[name] for name in trial.keys() - visit} == {name: app[name] for name in trial.keys() - visit}
    assert not [name for name in app.keys() - trial.keys() if not name.startswith("VOILA_")]
    assert not trial.keys() & {"MY_KEY", "PYTHONPATH"}
    assert not trial["can write"]


def test_a_notebook_that_publishes_itself_is_published_once(folder, store, guest):
    notebook = write(
        folder, "self.ipynb", "%load_ext cnai\nprint('the app')", f"%cnai publish self.ipynb --share {GUEST}"
    )
    app = apps.publish(notebook, share=[GUEST])
    page = guest.get(path_of(app)).text
    assert "the app" in page
    assert "self is not published from here" in page
    assert store.get(PERSON, "self").current == 1
    apps.unpublish("self")


def test_an_app_of_an_older_version_knows_only_the_name_of_its_notebook(folder, store):
    apps.publish(write(folder, "older.ipynb", "1"))
    store.write(replace(store.get(PERSON, "older"), source=""))
    with pytest.raises(UsageError, match=r"was published from older\.ipynb; given: other\.ipynb; add --slug"):
        apps.publish(write(folder, "other.ipynb", "2"), slug="older")
    assert apps.publish(write(folder, "older.ipynb", "2")).version == 2
    apps.unpublish("older")


def test_a_notebook_that_fails_leaves_the_old_release(folder, store, guest):
    good = apps.publish(write(folder, "fragile.ipynb", "'it ' + 'works'"), share=[GUEST])
    with pytest.raises(HubError) as refused:
        apps.publish(write(folder, "fragile.ipynb", "x = 0", "y = 1\nprint(y / x)"))
    assert "cell 2, line 2: print(y / x)" in str(refused.value)
    assert "ZeroDivisionError" in str(refused.value)
    assert "release 1 stays" in str(refused.value)
    assert store.get(PERSON, "fragile").current == 1
    assert "it works" in guest.get(path_of(good)).text
    apps.unpublish("fragile")


def test_a_notebook_that_never_worked_leaves_nothing(folder, store, api):
    with pytest.raises(HubError, match="nothing was published"):
        apps.publish(write(folder, "broken.ipynb", "1 / 0"))
    assert store.get(PERSON, "broken") is None
    assert api.get(f"users/{PERSON}/servers/app-broken").status_code == 404


def test_unpublishing_removes_server_shares_and_files(hub, folder, store, guest, api):
    gone = apps.publish(write(folder, "gone.ipynb", "1"), share=[GUEST])
    assert guest.get(path_of(gone)).status_code == 200
    apps.unpublish("gone")
    assert not store.folder(PERSON, "gone").exists()
    assert api.get(f"users/{PERSON}/servers/app-gone").status_code == 404
    assert "app-gone" not in hub.api().get(f"shares/{PERSON}").text
    assert guest.get(path_of(gone)).status_code in (403, 404, 424)
    assert "gone" not in [app.slug for app in apps.apps()]


def test_a_group_means_its_members(folder, hub, guest, api):
    api.post("groups/team")
    api.post("groups/team/users", json={"users": [GUEST]})
    shared = apps.publish(write(folder, "team.ipynb", "1"), share=["team"])
    assert shared.share == ("team",)
    assert guest.get(path_of(shared)).status_code == 200
    apps.unpublish("team")
    api.delete("groups/team")


def test_shares_let_nobody_start_or_change_a_server(app, hub, guest, api):
    scopes = [share["scopes"] for share in hub.api().get(f"shares/{PERSON}/app-squares").json()["items"]]
    assert scopes == [[f"access:servers!server={PERSON}/app-squares"]]
    write_headers = {"headers": {"X-XSRFToken": xsrf(guest)}}
    path = f"/hub/api/users/{PERSON}/servers/app-squares"
    assert guest.post(path, json={"user_options": {"image": "evil"}}, **write_headers).status_code in (403, 404)
    assert guest.delete(path, **write_headers).status_code in (403, 404)


def test_a_stopped_app_starts_from_the_apps_page(app, guest, api):
    assert api.delete(f"users/{PERSON}/servers/app-squares").status_code in (202, 204)
    state = f"/services/apps/state/{PERSON}/squares"
    token = {"X-XSRFToken": guest.cookies.get("_xsrf", path="/services/apps/")}
    until(lambda: guest.get(state).json()["state"] == "stopped", "the app has stopped")
    page = guest.get(f"{app.url}?name=ada")
    assert (page.url.path, page.url.query) == (f"/services/apps/open/{PERSON}/squares", b"name=ada")
    assert f'data-opening="{PERSON}/squares"' in page.text
    assert guest.post(f"/services/apps/start/{PERSON}/squares").status_code == 403  # without the page's token
    assert guest.post(f"/services/apps/start/{PERSON}/squares", headers=token).status_code == 202
    until(lambda: guest.get(state).json()["state"] == "running", "the app runs")
    page = guest.get(app.url)
    assert (page.status_code, page.url.path) == (200, path_of(app))


def test_the_published_address_keeps_its_parameters(hub, folder):
    """Also through the login of the hub, of the apps page and of the app, of a person who comes for the first time."""
    source = "import os; print('asked', os.environ.get('QUERY_STRING'))"
    app = apps.publish(write(folder, "asked.ipynb", source), share=[GUEST])
    address = f"{app.url}?name=ada%20l&x=1&x=2&empty="
    client = hub.visitor()
    login = client.get(address)
    assert login.url.path == "/hub/login"
    form = {"username": GUEST, "password": hub.password(GUEST), "_xsrf": xsrf(client)}
    page = client.post("/hub/login", params={"next": login.url.params["next"]}, data=form)
    assert (page.status_code, page.url.path) == (200, path_of(app))
    assert "asked name=ada%20l&amp;x=1&amp;x=2&amp;empty=" in page.text
    assert "asked name=ada%20l&amp;x=1&amp;x=2&amp;empty=" in client.get(address).text
    assert client.get(app.url).url.query == b""
    apps.unpublish("asked")


def test_publishing_needs_a_token_of_somebody_who_may(hub, guest, author):
    body = {"slug": "x", "name": "x.ipynb", "notebook": {}}
    for client in (guest, author):  # cookies don't count as a token
        token = {"X-XSRFToken": client.cookies.get("_xsrf", path="/services/apps/") or ""}
        assert client.post("/services/apps/api/apps", json=body, headers=token).status_code == 403
        assert client.delete("/services/apps/api/apps/squares", headers=token).status_code == 403
        assert client.get("/services/apps/api/apps").status_code == 403
    with httpx.Client(base_url=hub.url) as stranger:
        assert stranger.post("/services/apps/api/apps", json=body).status_code == 403
        assert (
            stranger.post("/services/apps/api/apps", json=body, headers={"Authorization": "token x"}).status_code == 403
        )


def test_a_damaged_app_is_repaired_by_publishing_it_again(folder, store):
    notebook = write(folder, "damaged.ipynb", "'whole'")
    first = apps.publish(notebook)
    (store.folder(PERSON, "damaged") / "app.json").write_text("{")
    assert "damaged" not in [app.slug for app in apps.apps()]
    with pytest.raises(HubError, match=r"damaged/app\.json is damaged: .*; publish the notebook again"):
        apps.unpublish("damaged")
    again = apps.publish(notebook)
    assert (again.version, again.state) == (first.version + 1, "running")
    apps.unpublish("damaged")


def test_a_notebook_server_may_publish_with_its_own_token(hub, api, folder, guest):
    """This is also the control for the forbidden actions of viewers: the same client runs code where it may."""
    source = "import os\nassert 'MY_KEY' not in os.environ and os.umask(0o22) == 0o22\n'from ' + 'lab'"
    notebook = write(hub.home / "notebooks", "from-lab.ipynb", source)
    marker = folder / "marker"
    code = (
        "import os; os.environ.pop('CNAI_HOME'); os.environ['MY_KEY'] = 'x'; os.umask(0o77)\n"
        "from cnai.publishing import apps\n"
        f"app = apps.publish({str(notebook)!r}, share=[{GUEST!r}])\n"
        f"open({str(marker)!r}, 'w').write(repr(app) + apps.apps()._repr_html_())"
    )
    hub.spawn(api)
    made = api.post(f"{hub.url}/user/{PERSON}/api/kernels", json={"name": "python3"})
    with wire(api, f"/user/{PERSON}/api/kernels/{made.json()['id']}/channels") as lab:
        reply = lab.until("execute_reply", lab.send(execute(code)))[-1]
    assert reply["content"]["status"] == "ok", json.dumps(reply["content"])
    assert "from-lab" in marker.read_text()
    assert "from lab" in guest.get(f"/user/{PERSON}/app-from-lab/").text
    apps.unpublish("from-lab")
    hub.stop_server(api)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"share": ["gust"]}, "no user or group is named 'gust'"),
        ({"slug": "No Good"}, "lowercase letters"),
        ({"include": ["missing"]}, "missing does not exist in"),
        ({"include": ["/etc/hostname"]}, "is not inside"),
        ({"include": [".."]}, "is not inside"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(folder, store, wanted, reason):
    before = store.apps()
    with pytest.raises(UsageError, match=reason) as refused:
        apps.publish(write(folder, "a.ipynb", "1"), **wanted)
    assert len(str(refused.value).splitlines()) == 1
    assert store.apps() == before


def test_an_unknown_app_is_named_with_those_there_are(app, terminal):
    with pytest.raises(UnknownName, match=r"unknown app 'square'; did you mean 'squares'\?"):
        apps.unpublish("square")


def test_a_disk_that_takes_nothing_is_told_and_the_old_release_stays(hub, folder, store, guest):
    app = apps.publish(write(folder, "full.ipynb", "'it ' + 'works'"), share=[GUEST])
    releases = store.folder(PERSON, "full") / "releases"
    releases.rename(releases.with_name("away"))
    releases.write_text("a file where a folder should be")  # fails like a full disk, even for root
    with pytest.raises(HubError, match="could not be written, so the old one stays"):
        apps.publish(write(folder, "full.ipynb", "2"))
    releases.unlink()
    releases.with_name("away").rename(releases)
    assert store.get(PERSON, "full").current == 1
    assert "it works" in guest.get(path_of(app)).text
    apps.unpublish("full")
