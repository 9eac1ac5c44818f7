"""Homes that an older cnai wrote open, and what was paused there goes on; `tests/older/runs` holds real runs."""

from __future__ import annotations

import json
import platform
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

import cnai
from cnai.backends.local import client as local
from cnai.errors import RunFailed
from cnai.events import State

OLDER = Path(__file__).resolve().parents[1] / "older" / "runs"
RECORDS = {file.parent.name: json.loads(file.read_text()) for file in sorted(OLDER.glob("*/record.json"))}
WAIT = 120


def minor(python):
    return python.rpartition(".")[0]


def written_by_others():
    """Say which program that binds a payload or a pickled result to its version has another version here."""
    wrote = next(iter(RECORDS.values()))
    python, cloudpickle = wrote["python"], wrote["packages"]["cloudpickle"]
    if minor(python) != minor(platform.python_version()):
        return f"payloads of Python {python} can't be read by {platform.python_version()}"
    if cloudpickle != version("cloudpickle"):
        return f"payloads of cloudpickle {cloudpickle} may not be read by {version('cloudpickle')}"
    return ""


same_pickles = pytest.mark.skipif(bool(written_by_others()), reason=written_by_others())


@pytest.fixture
def older_home(home):
    """A copy of the home; an engine that is started in it ends with the test."""
    shutil.copytree(OLDER, home / "runs")
    yield home
    local.stop()


@pytest.fixture
def runs(older_home):
    return {run.spec.name: run for run in cnai.runs()}


def test_all_runs_are_listed_in_their_states(runs):
    assert {name: run.state for name, run in runs.items()} == {
        "cell": State.SUCCEEDED,
        "digits": State.SUCCEEDED,
        "failed": State.FAILED,
        "paused": State.PAUSED,
        "reference": State.SUCCEEDED,
        "succeeded": State.SUCCEEDED,
    }
    assert next(iter(runs)) == "digits"
    assert {run.record["cwd"] for run in runs.values()} == {"/tmp/notebooks"}


def test_each_kind_of_target_is_read_from_its_spec(runs):
    assert {name: str(run.spec.target.kind) for name, run in runs.items() if name in {"cell", "paused"}} == {
        "cell": "cell",
        "paused": "function",
    }
    assert runs["cell"].spec.target.returns == ("x",)
    assert runs["paused"].spec.checkpoint_every.steps == 20
    assert runs["paused"].spec.ranks.maximum == 2


@same_pickles
def test_a_result_comes_back_with_its_model(runs):
    result = runs["succeeded"].result(0)
    assert [parameter.tolist() for parameter in result["net"].parameters()] == result["weight"]
    assert runs["succeeded"].result(0)["loss"] == result["loss"]


@same_pickles
def test_a_cell_gives_back_its_names(runs):
    assert runs["cell"].result(0) == {"x": {"a": 1}}


def test_a_failure_has_the_traceback_of_its_rank(runs):
    with pytest.raises(RunFailed, match="ValueError: no data in folder 7") as failed:
        runs["failed"].result(0)
    assert failed.value.rank == 0
    assert 'line 15, in broken\n    def broken(): raise ValueError("no data in folder 7")' in failed.value.traceback
    assert "no data in folder 7" in runs["failed"].reason


def test_logs_and_curves_are_there(runs):
    assert runs["cell"].logs() == "hello from a cell\n" * 2
    assert runs["cell"].logs(rank=1) == "hello from a cell\n"
    assert runs["paused"].metrics["loss"].steps == list(range(1, 36))
    assert runs["digits"].step == runs["digits"].metrics["loss"].steps[-1]
    assert 0.9 < runs["digits"].metrics["accuracy"].values[-1] <= 1


@same_pickles
@pytest.mark.usefixtures("starts_processes")
def test_a_paused_run_goes_on_to_the_weights_of_one_that_never_paused(older_home):
    run = cnai.attach("paused")
    assert run.step == 35
    run.resume()
    result, reference = run.result(WAIT), cnai.attach("reference").result(0)
    assert run.generation == 1
    assert run.metrics["loss"].steps == list(range(1, 161))
    assert result["weight"] == reference["weight"]
    assert result["loss"] == reference["loss"]
