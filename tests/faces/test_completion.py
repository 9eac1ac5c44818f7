"""What the Tab key offers, by itself and through a real kernel."""

import pytest

from cnai.faces.completion import candidates
from cnai.grammar import VERBS


def fit(epochs=1, lr=0.1):
    return epochs, lr


@pytest.fixture
def folder(tmp_path, home, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("train.py", "demo.ipynb", "data.csv", ".hidden.py", "sub/inner.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for run in ("fit-0101-000000-aaaa", "fit-0102-000000-bbbb"):
        (home / "runs" / run).mkdir(parents=True)
    (home / "apps" / "me" / "demo").mkdir(parents=True)
    (home / "apps" / "me" / "demo" / "app.json").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", list(VERBS)),
        ("s", ["stop", "scale"]),
        ("nothing ", []),
        ("train ", ["fit", "demo/", "home/", "sub/", "train.py"]),
        ("train f", ["fit"]),
        ("train sub/", ["sub/inner.py"]),
        ("train fit ", ["epochs=", "lr="]),
        ("train fit --ranks 2 e", ["epochs="]),
        ("train train.py d", ["data.csv", "demo.ipynb", "demo/"]),
        ("train fit --ra", ["--ranks"]),
        ("train fit --ranks 2 --ra", []),
        ("train fit --env A=1 --en", ["--env"]),
        ("train fit --ranks ", []),
        ("train fit --flavor ", ["small", "medium", "large", "gpu", "gpu4"]),
        ("train fit --image ", ["torch"]),
        ("train fit --backend d", ["debug"]),
        ("train train.py -- --r", []),
        ("attach ", ["latest", "fit-0101-000000-aaaa", "fit-0102-000000-bbbb"]),
        ("attach fit-0101-000000-aaaa ", []),
        ("logs --rank 1 l", ["latest"]),
        ("cluster st", ["status", "start", "stop"]),
        ("publish ", ["demo.ipynb", "demo/", "home/", "sub/"]),
        ("publish demo.ipynb --include d", ["data.csv", "demo.ipynb", "demo/"]),
        ("unpublish ", ["demo"]),
        ("apps ", []),
    ],
)
def test_candidates(folder, line, expected):
    (folder / "demo").mkdir()
    *words, begun = line.split(" ")
    assert sorted(candidates(words, begun, {"fit": fit, "Net": type, "number": 3, "_": fit})) == sorted(expected)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("%cnai tr", ["%cnai train"]),
        ("run = %cnai train fi", ["run = %cnai train fit"]),
        ("%%cnai train --ret", ["%%cnai train --retries", "%%cnai train --return"]),
        ("%cnai train fit ste", ["%cnai train fit steps="]),
        ("x = 1\n%cnai train fit --infra", ["x = 1\n%cnai train fit --infra-retries"]),
    ],
)
def test_a_notebook_completes_our_lines_with_ours_only(kernel, code, expected):
    assert kernel.complete(code) == expected


def test_values_of_parameters_are_completed_as_python(kernel):
    kernel.run("numbers_of_mine = [1]")
    assert "%cnai train fit steps=numbers_of_mine" in kernel.complete("%cnai train fit steps=numbers_of_m")
