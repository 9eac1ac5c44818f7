"""The client of apps without a hub: what it makes of a notebook, and what it says when something is missing."""

from __future__ import annotations

import json
import re
import sys
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnai.appwire import CellFailed
from cnai.errors import HubError, UsageError
from cnai.publishing import apps, localfiles
from cnai.publishing.advice import advice
from cnai.publishing.notebook import files_of, slug_from


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of an author's, and no hub."""
    monkeypatch.setenv("CNAI_HOME", str(tmp_path / "cnai"))
    for name in ("JUPYTERHUB_API_TOKEN", "CNAI_HUB_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def notebook(*sources, kind="code"):
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {},
        "cells": [{"cell_type": kind, "source": s} for s in sources],
    }


def write(folder, *sources, name="a.ipynb"):
    (folder / name).write_text(json.dumps(notebook(*sources)))
    return folder / name


def test_without_a_hub_one_line_says_what_to_do(folder):
    for action in (lambda: apps.publish(write(folder, "1")), lambda: apps.unpublish("a"), apps.apps):
        with pytest.raises(HubError, match="found no hub to publish to; start it with `make run`") as missing:
            action()
        assert len(str(missing.value).splitlines()) == 1


def test_a_hub_that_has_gone_is_told_so(folder, monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "x")
    monkeypatch.setenv("CNAI_HUB_URL", "http://127.0.0.1:9/")
    for action in (lambda: apps.publish(write(folder, "1")), lambda: apps.unpublish("a"), apps.apps):
        with pytest.raises(HubError, match=r"the hub at http://127.0.0.1:9/ does not answer \(ConnectError\)"):
            action()


def test_a_hub_without_apps_is_told_so(folder, monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "x")
    with pytest.raises(HubError, match="no apps service"):
        apps.apps()


@pytest.mark.parametrize("text", ["", "[]", '{"hub_url": "http://127.0.0.1:9/"}', '{"hub_url": 9, "token": "x"}'])
def test_a_damaged_file_of_the_hub_is_as_good_as_none(folder, tmp_path, text):
    (tmp_path / "cnai" / "hub").mkdir(parents=True)
    (tmp_path / "cnai" / "hub" / "client.json").write_text(text)
    with pytest.raises(HubError, match="found no hub to publish to"):
        apps.apps()


@pytest.fixture
def answers(folder, monkeypatch):
    """A hub that gives one answer to everything."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said[0])

        def log_message(self, *_):
            pass

    said = [b""]
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "x")
        monkeypatch.setenv("CNAI_HUB_URL", f"http://127.0.0.1:{server.server_port}/")
        yield lambda text: said.__setitem__(0, text.encode())
        server.shutdown()


MODEL = {
    "slug": "a", "title": "A", "author": "ada", "mine": True, "created": 1.0, "published": 2, "version": 1,
    "share": [], "state": "running", "url": "http://127.0.0.1/",
}  # fmt: skip


def test_what_a_newer_hub_says_beside_is_ignored(answers):
    answers(json.dumps({"apps": [MODEL | {"icon": "x"}], "more": True}))
    assert [(app.slug, app.state) for app in apps.apps()] == [("a", "running")]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("<html>", "is not JSON"),
        ("[]", "must be a table"),
        ("{}", "apps is missing"),
        (json.dumps({"apps": [MODEL | {"version": "1"}]}), r"apps\[0\].version must be a whole number; given: '1'"),
        (json.dumps({"apps": [MODEL | {"state": "odd"}]}), r"apps\[0\].state must be running or"),
    ],
)
def test_another_answer_is_one_sentence(answers, answer, why):
    answers(answer)
    with pytest.raises(HubError, match=rf"runs another version of cnai \({why}") as refused:
        apps.apps()
    assert "\n" not in str(refused.value)


def test_a_missing_notebook_is_told_with_those_there_are(folder):
    write(folder, "1", name="other.ipynb")
    with pytest.raises(UsageError, match=r"a\.ipynb does not exist; notebooks in that folder: other\.ipynb"):
        apps.publish(folder / "a.ipynb")


@pytest.mark.parametrize("text", ["", "print(1)", "[]", "{}", '{"cells": []}', "\x00"])
def test_what_is_no_notebook_is_told_so(folder, text):
    (folder / "a.ipynb").write_text(text)
    with pytest.raises(UsageError, match=r"a\.ipynb is not a notebook"):
        apps.publish(folder / "a.ipynb")


def test_a_folder_is_no_notebook(folder):
    with pytest.raises(UsageError, match="is not a notebook"):
        apps.publish(folder)


@pytest.mark.parametrize("slug", ["No", "a--b", "-a", "a" * 27, "a/b", "ä"])
def test_a_name_that_cant_be_is_told_so(folder, slug):
    for action in (lambda: apps.publish(write(folder, "1"), slug=slug), lambda: apps.unpublish(slug)):
        with pytest.raises(UsageError, match="can't be an app's name; allowed: lowercase letters"):
            action()


@given(st.text(max_size=60))
def test_every_file_name_gives_a_name_that_can_be(name):
    slug = slug_from(name)
    assert re.fullmatch(r"[a-z0-9](-?[a-z0-9])*", slug)
    assert len(slug) <= 26


def test_names_stay_readable():
    names = {"01 First run!": "01-first-run", "Übung_2": "ubung-2", "Straße": "strasse", "Łódź": "lodz"}
    names |= {"Привет": "privet", "отчёт 2024": "otchet-2024", "Ελλάδα": "ellada"}
    assert {name: slug_from(name) for name in names} == names


def test_names_without_latin_letters_differ():
    names = ["日本語", "한국어", "العربية", "日本語 2024"]
    assert len({slug_from(name) for name in names}) == len(names)
    assert re.fullmatch(r"2024-[0-9a-f]{6}", slug_from("日本語 2024"))


def test_the_modules_that_a_notebook_imports_go_with_it(folder):
    (folder / "used.py").write_text("import deeper")
    (folder / "deeper.py").write_text("import used, json")
    (folder / "unused.py").write_text("")
    (folder / "pack" / "__pycache__").mkdir(parents=True)
    (folder / "pack" / "__init__.py").write_text("")
    (folder / "pack" / "part.py").write_text("")
    (folder / "pack" / "data.bin").write_text("")
    (folder / "pack" / "__pycache__" / "x.py").write_text("")
    content = notebook(
        "%matplotlib inline\nimport used as u, os", "%%cnai train --ranks 2\nfrom pack.part import x", "if"
    )
    found = {path.relative_to(folder).as_posix() for path in localfiles.modules(folder, content)}
    assert found == {"used.py", "deeper.py", "pack/__init__.py", "pack/data.bin", "pack/part.py"}


def test_text_is_not_searched_for_modules(folder):
    (folder / "used.py").write_text("")
    assert localfiles.modules(folder, notebook("import used", kind="markdown")) == set()


def test_what_is_included_goes_with_it(folder):
    (folder / "data" / ".git").mkdir(parents=True)
    (folder / "data" / "a.csv").write_text("1")
    (folder / "data" / ".git" / "secret").write_text("1")
    (folder / "data" / "link").symlink_to("/etc/hostname")
    (folder / "one.txt").write_text("1")
    (folder / ".hidden").write_text("1")
    (folder / "newest").symlink_to("data")
    (folder / "data" / "round").symlink_to("..")
    (folder / "data" / "gone").symlink_to("missing")
    said = []

    def included(*names):
        said.clear()
        return sorted(str(file.relative_to(folder)) for file in localfiles.included(folder, names, tell=said.append))

    assert included("data", "one.txt") == ["data/a.csv", "one.txt"]
    assert said == [
        "left out: data/gone, a link to missing; copy what the app needs",
        "left out: data/link, a link to /etc/hostname; copy what the app needs",
        "left out: data/round, a link to ..; copy what the app needs",
    ]
    assert included(".") == included(folder, ".") == ["data/a.csv", "newest/a.csv", "one.txt"]
    assert included("newest/") == included("newest") == ["newest/a.csv"]  # under the name that the notebook uses
    assert included(".hidden") == [".hidden"]


@pytest.mark.parametrize("name", ["..", "../work2", "/etc", "/etc/hostname", "out"])
def test_nothing_from_elsewhere_can_be_included(folder, name):
    (folder / "out").symlink_to("/etc")
    (folder.parent / "work2").mkdir()
    with pytest.raises(UsageError, match="is not inside"):
        localfiles.included(folder, [name], tell=print)


KERNELS = [
    {"kernelspec": {"name": "ir", "display_name": "R", "language": "R"}},
    {"kernelspec": {"name": "ir"}, "language_info": {"name": "R"}},
    {"language_info": {"name": "julia"}},
    {"kernelspec": {"name": "other-env", "display_name": "Other", "language": "python"}},
    {"kernelspec": {"name": "elsewhere", "display_name": "Elsewhere", "language": "python"}},
]


@pytest.fixture
def kernels(folder, monkeypatch):
    """Two more kernels of this account: one is this Python, the other another environment's."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(folder / "jupyter"))
    for name, program in (("ours", sys.executable), ("elsewhere", "/opt/other/bin/python")):
        (folder / "jupyter" / "kernels" / name).mkdir(parents=True)
        spec = {"argv": [program, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": name}
        (folder / "jupyter" / "kernels" / name / "kernel.json").write_text(json.dumps({**spec, "language": "python"}))


@pytest.mark.parametrize("metadata", KERNELS)
def test_a_notebook_of_another_kernel_is_refused_in_one_line(folder, kernels, metadata):
    (folder / "a.ipynb").write_text(json.dumps(notebook("1") | {"metadata": metadata}))
    with pytest.raises(
        UsageError, match=r"a\.ipynb uses the kernel .*; an app runs the Python of cnai's own"
    ) as refused:
        apps.publish(folder / "a.ipynb")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["python3", "ours"])
def test_a_kernel_of_this_python_is_an_apps(folder, kernels, name):
    (folder / "a.ipynb").write_text(json.dumps(notebook("1") | {"metadata": {"kernelspec": {"name": name}}}))
    with pytest.raises(HubError, match="found no hub"):
        apps.publish(folder / "a.ipynb")


def test_files_of_the_home_that_a_pod_lacks_are_found(folder):
    (folder / "a.csv").write_text("1")
    here = notebook(f"open('{folder}/a.csv'); open('{folder}/none.csv'); open('a.csv'); open(\"/etc/hostname\")")
    assert files_of(folder.parent, here) == [f"{folder}/a.csv"]


ADVICE = {
    (
        "FileNotFoundError: [Errno 2] No such file or directory: 'data/a.csv'",
        "",
    ): "app has no data/a.csv; add --include",
    ("FileNotFoundError: data/a.csv not found.", ""): "add --include data/a.csv",
    ('OSError: [Errno 22] can\'t open "data/a.csv"', ""): "add --include data/a.csv",
    ("FileNotFoundError: [Errno 2] No such file or directory: 'b.csv'", ""): "and the paths of --include",
    ("FileNotFoundError: [Errno 2] No such file or directory: '/etc/none'", ""): "and the paths of --include",
    ("ModuleNotFoundError: No module named 'part.more'", ""): "the app has no src; add --include src",
    ("ModuleNotFoundError: No module named 'nowhere'", ""): "",
    ("PermissionError: [Errno 13] Permission denied: 'out.png'", ""): "can't write to its own folder",
    ("PermissionError: [Errno 13] Permission denied: '/tmp/cnai-trial-1/files/x'", ""): "can't write to its own folder",
    ("PermissionError: [Errno 13] Permission denied: '/root/x'", ""): "",
    ("OperationalError: attempt to write a readonly database", ""): "can't write to its own folder",
    ("KeyError: 'MY_KEY'", "os.environ['MY_KEY']"): "no variables of its author's",
    ("KeyError: 'MY_KEY'", "table['MY_KEY']"): "",
    ("ValueError: 'kept.csv'", ""): "",
}


def test_a_failed_trial_tells_what_to_do(folder):
    (folder / "data").mkdir()
    (folder / "data" / "a.csv").write_text("1")
    (folder / "src" / "part").mkdir(parents=True)
    (folder / "kept.csv").write_text("1")
    for (error, source), hint in ADVICE.items():
        given = advice(CellFailed(cell=1, line=1, source=source, error=error, tail=""), folder, {"kept.csv": b"1"})
        assert (hint in given) if hint else not given, (error, given)


def test_too_much_is_refused(folder, monkeypatch):
    (folder / "big").write_bytes(b"x" * 11)
    monkeypatch.setattr(localfiles, "MOST_BYTES", 10)
    with pytest.raises(UsageError, match="with big the app has 1 files"):
        localfiles.included(folder, ["big"], tell=print)


@pytest.fixture
def app():
    return apps.App(
        slug="demo",
        title="<script>",
        author="ada",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        state="running",
        url='http://127.0.0.1:8000/user/ada/app-demo/"',
        version=3,
        share=("<b>",),
    )


def test_an_app_shows_itself(app):
    assert repr(app) == '<script> (demo, version 3, running): http://127.0.0.1:8000/user/ada/app-demo/"'
    page = app._repr_html_()
    assert "<script>" not in page
    assert "<b>&lt;script&gt;</b>" in page
    assert 'href="/user/ada/app-demo/&quot;"' in page
    assert "&lt;b&gt;" in page


def test_a_list_of_apps_shows_one_a_line(app):
    assert repr(apps.Apps([app, app])).splitlines() == [repr(app), repr(app)]
    assert apps.Apps([app, app])._repr_html_().count("<p>") == 2
    assert repr(apps.Apps()) == "no apps"
    assert apps.Apps()._repr_html_() == "<p>no apps</p>"
