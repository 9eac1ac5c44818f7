"""The trial: a notebook runs once before it is published, and its author learns why it doesn't."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from cnai.errors import UsageError
from cnai.publishing.conditions import Conditions
from cnai.publishing.trial import TrialFailed, rehearse, results

pytestmark = pytest.mark.usefixtures("starts_processes")

PATIENCE_SECONDS = 120.0


@pytest.fixture
def run(tmp_path):
    def run(*sources, deadline_seconds=PATIENCE_SECONDS, tags=(), is_homeless=False):
        cells = [new_code_cell(source, metadata={"tags": list(tags)}) for source in sources]
        notebook = nbformat.writes(new_notebook(cells=[new_markdown_cell("# A"), *cells])).encode()
        said = []
        files = {"a.ipynb": notebook, "data/x": b"1"}
        conditions = Conditions(dict(os.environ), is_homeless=is_homeless)
        return rehearse(files, "a.ipynb", conditions, deadline_seconds=deadline_seconds, progress=said.append), said

    return run


def test_a_good_notebook_tells_what_it_ran_with(run, tmp_path):
    outcome, said = run(
        f"assert open('data/x').read() == '1'; open({str(tmp_path / 'folder')!r}, 'w').write(__import__('os').getcwd())"
    )
    assert outcome.packages["voila"].startswith("0.5")
    assert outcome.python.count(".") == 2
    assert said == ["running the notebook once: cell 1 of 2", "running the notebook once: cell 2 of 2"]
    assert not Path((tmp_path / "folder").read_text()).exists()  # it ran in a folder of its own, which is gone


def test_a_failing_cell_is_named_with_its_line(run):
    with pytest.raises(TrialFailed) as failed:
        run("def half(n):\n    return 1 / n", "n = 0\nhalf(n)")
    first, second, *rest = str(failed.value).splitlines()
    assert first == "a.ipynb: cell 3, line 2: half(n)"
    assert second == "ZeroDivisionError: division by zero"
    assert any("return 1 / n" in line for line in rest)
    assert "\x1b" not in str(failed.value)


def test_a_syntax_error_is_named(run):
    with pytest.raises(TrialFailed, match=r"(?s)cell 2, line 2: if x\n.*SyntaxError"):
        run("x = 1\nif x")


def test_an_error_that_is_meant_to_be_is_none(run):
    outcome, _ = run("1 / 0", tags=["raises-exception"])
    assert outcome.packages


def test_a_kernel_that_dies_is_told(run):
    with pytest.raises(TrialFailed, match="its kernel ended at cell 2"):
        run("import os\nos._exit(3)")


def test_an_endless_notebook_is_ended_with_its_kernel(run, tmp_path):
    pid = tmp_path / "pid"
    with pytest.raises(TrialFailed, match=r"within 8 s \(it was at cell 2 of 2\)"):
        run(f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(10_000)", deadline_seconds=8)
    psutil.wait_procs(
        [psutil.Process(int(pid.read_text()))] if psutil.pid_exists(int(pid.read_text())) else [], timeout=60
    )
    assert not psutil.pid_exists(int(pid.read_text()))


def test_the_notebook_gets_no_token(run, monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "secret")
    monkeypatch.setenv("CNAI_HUB_URL", "http://127.0.0.1:1/")
    run("import os\nassert not [name for name in os.environ if 'HUB' in name or 'TOKEN' in name], list(os.environ)")


def test_the_notebook_gets_no_packages_of_its_authors_home(run):
    outcome, _ = run("import sys; assert sys.flags.no_user_site")
    assert outcome.packages


CANT = {
    "open('new.txt', 'w')": "PermissionError",
    "open('data/x', 'a')": "PermissionError",
    "os.mkdir('new')": "PermissionError",
    "os.remove('data/x')": "PermissionError",
    "os.rename('a.ipynb', 'b.ipynb')": "PermissionError",
    "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.savefig('figure.png')": "PermissionError",
}
"""Actions that fail in an app, whose release is read-only, and the errors."""


def test_the_trial_fails_where_the_app_would(run):
    """Also as root, whom file modes don't stop."""
    for source, error in CANT.items():
        checked = f"import os\ntry:\n    {source}\nexcept {error}:\n    pass\nelse:\n    raise AssertionError"
        run(checked)
    with pytest.raises(TrialFailed, match=r"cell 2, line 1: open\('new.txt', 'w'\)\nPermissionError"):
        run("open('new.txt', 'w')")


def test_an_app_in_a_pod_has_an_empty_home(run, tmp_path, monkeypatch):
    (tmp_path / "mine").write_text("1")
    monkeypatch.setenv("HOME", str(tmp_path))
    look = "import pathlib; assert {there}(pathlib.Path.home() / 'mine').exists()"
    run(look.format(there=""))
    run(look.format(there="not "), is_homeless=True)


def test_publishing_inside_a_trial_does_nothing(run, engine):  # which %load_ext would start
    """Otherwise a notebook that publishes itself, or two that publish each other, would do so without end."""
    outcome, _ = run(
        "%load_ext cnai\n%cnai publish a.ipynb --share guest",
        "import sys\nsaid = !{sys.executable} -m cnai.faces.cli publish a.ipynb\n"
        "assert 'a is not published from here' in said[0], said",
        "import cnai\nassert cnai.publish('missing.ipynb', share=['guest']).version == 0",
        "try:\n    cnai.unpublish('a')\nexcept cnai.CnaiError as error:\n    assert 'not removed' in str(error)",
    )
    assert outcome.packages


def test_a_publisher_that_is_killed_leaves_neither_files_nor_processes(tmp_path):
    pid = tmp_path / "pid"
    cell = f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(10_000)"
    notebook = nbformat.writes(new_notebook(cells=[new_code_cell(cell)]))
    code = (
        "import os\nfrom cnai.publishing import trial\nfrom cnai.publishing.conditions import Conditions\n"
        f"trial.rehearse({{'a.ipynb': {notebook!r}.encode()}}, 'a.ipynb', Conditions(dict(os.environ)),"
        " deadline_seconds=600, progress=print)"
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    publisher = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(temporary)})
    _until(lambda: pid.exists() and pid.read_text(), "the cell runs")
    family = [psutil.Process(publisher.pid), *psutil.Process(publisher.pid).children(recursive=True)]
    assert list(temporary.glob("cnai-trial-*"))
    publisher.kill()
    publisher.wait()
    _, alive = psutil.wait_procs(family, timeout=PATIENCE_SECONDS)
    assert alive == []
    assert list(temporary.glob("cnai-trial-*")) == []


def _until(found, what):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_cells_that_print_into_widgets_never_wait_forever(run):
    """Fails within few tries without `WakingClient`: see there."""
    printing = "with out:\n    out.clear_output(wait=True)\n    print(1)"
    outcome, _ = run("import ipywidgets\nout = ipywidgets.Output()\nout", *[printing] * 150)
    assert outcome.packages


def test_the_trial_tells_which_runs_the_notebook_shows(run, engine):
    """`--reuse` and attach show runs; what a notebook trains anew for each reader belongs to nobody else."""
    define = "%load_ext cnai\ndef fit(x):\n    return x * 2"
    outcome, _ = run(define, "%cnai train fit x=1 --wait", "%cnai train fit x=21 --reuse --name kept --wait")
    (kept,) = outcome.runs
    assert kept.startswith("kept-")
    assert list(outcome.pins.inputs.values()) == [kept]
    assert outcome.pins.names == {}
    again, _ = run(
        define, "one = %cnai train fit x=21 --reuse", "import cnai\nassert cnai.attach('kept').result() == 42"
    )
    assert again.runs == (kept,)
    assert again.pins.names == {"kept": kept}
    found = results(again.runs)
    assert set(found) == {
        f"{kept}/{name}" for name in ("spec.json", "record.json", "state.json", "events.jsonl", "result")
    }


def test_a_run_that_goes_on_cant_be_shown_yet(run, engine):
    import cnai

    def wait():
        import time

        time.sleep(600)

    going_on = cnai.train(wait, name="waits")
    outcome, _ = run("import cnai\ncnai.attach('waits').id")
    with pytest.raises(
        UsageError,
        match=f"run {going_on.id} is .*, but an app shows only finished runs; publish when the run has ended",
    ):
        results(outcome.runs)
    going_on.stop()
    going_on.wait(60)


def test_results_that_are_too_large_are_named(engine, monkeypatch):
    import cnai
    from cnai.publishing import trial

    run = cnai.train(lambda: "x" * 2000, name="large").wait(120)
    monkeypatch.setattr(trial, "MOST_RUN_BYTES", 1000)
    with pytest.raises(UsageError, match=f"return less from the target of {run.id}"):
        results([run.id])
