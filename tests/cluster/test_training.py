"""`%cnai train` from a notebook's pod: it trains on worker pods, survives their failures, and releases them."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest

pytest.importorskip("dask_kubernetes", reason="the extra `kubernetes` is not installed")

import notebookpod
import tenancy
from tenancy import until

from run import training

PATIENCE = """
import json, os, time
import cnai
from cnai.events import Kind, State

def until(condition, run=None, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{run} {run and run.reason}"
        assert run is None or not run.state.final, f"{run} {run.reason}"
        time.sleep(0.1)

def running(run, ranks):
    until(lambda: run.state is State.RUNNING and run.world_size == ranks and (run.step or 0) > 0, run)

def nodes():
    return [engine.wanted_nodes for engine in cnai.cluster()]

def where():
    import torch.distributed as dist
    ctx = cnai.context()
    mine = {"host": os.uname().nodename, "device": str(ctx.device), "home": os.environ["HOME"], "cwd": os.getcwd()}
    told = [None] * ctx.world_size
    dist.all_gather_object(told, mine)
    return told

def endless():
    ctx = cnai.context()
    for step in ctx.loop(10**6):
        ctx.report(loss=1 / step)
        time.sleep(0.1)
"""
HEAD = "import dataclasses, json, time, cnai, cnai.run\nfrom patience import *\nfrom training import digits\n"


@pytest.fixture(scope="module")
def house(cluster, images, tmp_path_factory):
    """A tenant with a home, a notebook's pod in it, and the operator as a process with its own account."""
    folder = tmp_path_factory.mktemp("training")
    reference = images["notebook"]
    (product, *_) = sorted(_products(cluster)) or pytest.skip("no node of the cluster has a nvidia.com/gpu")
    offered = notebookpod.catalog(reference, product)
    with tenancy.installed(cluster, folder, machines=2) as installation:
        user = f"train-{installation.suffix}"
        with tenancy.tenant(cluster, installation, user, [], offered) as namespace:
            cluster.create(notebookpod.claim(namespace, None), namespace)
            log = folder / "operator.log"
            with tenancy.operator(installation.operator.kubeconfig, log, "--namespace", namespace) as process:
                environment = {"CNAI_IDLE_SECONDS": "20"}
                notebook = notebookpod.Notebook(cluster, namespace, reference, offered, environment).start()
                notebook.write("patience.py", PATIENCE)
                notebook.write("training.py", training.__loader__.get_source(training.__name__))
                house = SimpleNamespace(admin=cluster, namespace=namespace, notebook=notebook, log=log)
                try:
                    yield house
                finally:
                    _empty(house)
                assert process.poll() is None, log.read_text()


def _products(cluster):
    nodes = cluster.get("nodes")["items"]
    with_gpus = [node for node in nodes if int(node["status"]["allocatable"].get("nvidia.com/gpu", 0)) >= 7]
    return {node["metadata"]["labels"].get(notebookpod.PRODUCT, "") for node in with_gpus}


@pytest.fixture
def notebook(house):
    """The notebook's pod in its current state: it may have the engine of an earlier test."""
    return house.notebook


@pytest.fixture
def emptied(house):
    """Remove all engines before the test."""
    _empty(house)


def _empty(house):
    if not _nothing_left(house):
        house.notebook.cnai("cluster", "stop")
        until(lambda: _nothing_left(house))


def _engine_pods(house, *more):
    labels = ",".join(["dask.org/cluster-name", *more])
    return house.admin.get("pods", "-n", house.namespace, "-l", labels)["items"]


def _nothing_left(house):
    everything = house.admin.get("daskclusters,daskworkergroups,deployments,services", "-n", house.namespace)["items"]
    return not everything and not _engine_pods(house)


def _program(code):
    return HEAD + code


def test_the_notebook_is_killed(house, emptied, notebook):
    for name, condition in (("early", "True"), ("late", "run.step")):
        client = notebook.again()
        code = f"""
run = cnai.train(digits, (30, 0.05), ranks=2, nodes=2, flavor="gpu-h100", name={name!r})
until(lambda: {condition}, run)
print("BEGUN", flush=True)
time.sleep(1000)
"""
        notebook.write("left.log", "")
        client.leave_running(_program(code))
        until(lambda: "BEGUN" in notebook.read("left.log"))
        client.kill()
        told = notebook.python(
            _program(f"""
run = cnai.attach({name!r})
result = run.result(180)
print(json.dumps([str(run.state), result[0], run.metrics["loss"].steps == list(range(1, 301))]))
""")
        )
        assert told == ["SUCCEEDED", 300, True]


def test_a_node_and_the_scheduler_are_killed(house, notebook):
    notebook.leave_running(
        _program("""
run = cnai.train(digits, (60, 0.05), ranks=2, nodes=2, flavor="gpu-h100", checkpoint_every=10, name="survivor")
run.wait(300)
print("END", json.dumps({"state": run.state, "result": run.result(), "generation": run.generation,
      "steps": run.metrics["loss"].steps == list(range(1, 601))}))
""")
    )
    _until_step(notebook, "survivor", 20)
    _kill(house, "dask.org/component=worker")
    _until_step(notebook, "survivor", 60, generation=1)
    _kill(house, "dask.org/component=scheduler")
    until(lambda: "END" in notebook.read("left.log"))
    told = json.loads(notebook.read("left.log").partition("END")[2])
    assert (told["state"], told["steps"]) == ("SUCCEEDED", True)
    assert told["generation"] >= 2
    assert told["result"][:2] == [600, 2]


def _kill(house, label):
    (pod, *_) = _engine_pods(house, label)
    words = ("delete", "pod", pod["metadata"]["name"], "-n", house.namespace, "--grace-period=0", "--force")
    house.admin.kubectl(*words)


def _until_step(notebook, name, step, generation=0):
    """Wait for a run with a new process in the pod, which reads the store."""
    notebook.python(
        _program(f"""
def there():
    found = [run for run in cnai.runs() if run.spec.name == {name!r}]
    assert not found or not found[0].state.final, found[0].reason
    return found and (found[0].step or 0) >= {step} and found[0].generation >= {generation}
until(there)
print("null")
""")
    )


def test_scaled_up_and_down(house, notebook):
    told = notebook.python(
        _program("""
run = cnai.train(digits, (100000, 0.3), ranks=2, nodes=2, flavor="gpu-h100")
running(run, 2)
run.scale(3)
running(run, 3)
three = nodes()
run.scale(1)
running(run, 1)
until(lambda: nodes() == [1], run)
steps = run.metrics["loss"].steps
run.stop()
run.wait(60)
print(json.dumps({"three": three, "whole": steps == list(range(1, len(steps) + 1)), "state": run.state}))
""")
    )
    assert told == {"three": [3], "whole": True, "state": "CANCELLED"}


def test_stopped_with_its_engine_a_run_goes_on_or_ends(house, notebook):
    notebook.python(
        _program("""
for name in ("one", "two"):
    run = cnai.train(digits, (100000, 0.3), ranks=1, flavor="gpu-h100", name=name)
    until(lambda: (run.step or 0) > 5, run)
print("null")
""")
    )
    assert "the engine is stopped" in notebook.cnai("cluster", "stop")
    until(lambda: _nothing_left(house))
    assert "stopping" in notebook.cnai("stop", "one")
    assert "CANCELLED" in notebook.cnai("attach", "one")
    assert _nothing_left(house), "no pod was started to end a run"
    told = notebook.python(
        _program("""
run = cnai.attach("two")
until(lambda: run.state is State.RUNNING and run.generation == 1 and (run.step or 0) > 10, run)
run.stop()
print(json.dumps(run.wait(60).state))
""")
    )
    assert told == "CANCELLED"


def test_two_nodes_and_back_to_nothing(house, emptied, notebook):
    told = notebook.python(
        _program("""
run = cnai.train(where, ranks=2, nodes=2, flavor="gpu-h100")
first, state = run.record["engine"], str(run.state)
told = run.result(180)
again = cnai.train(where, ranks=1, flavor="gpu-h100")
begun = time.monotonic()
again.result(60)
(engine,) = map(dataclasses.asdict, cnai.cluster())
print(json.dumps({"told": told, "state": state, "engines": [first, again.record["engine"]], "engine": engine,
                  "record": run.record, "spec": run.spec.backend}))
""")
    )
    assert told["state"] == "PENDING"
    assert told["spec"] == "kubernetes"
    assert len({each["host"] for each in told["told"]}) == 2
    assert {(each["device"], each["home"], each["cwd"]) for each in told["told"]} == {
        ("cpu", "/home/cnai", "/home/cnai")
    }
    assert told["engines"][0] == told["engines"][1], "a live engine takes the next run"
    assert (told["engine"]["flavor"], told["engine"]["runs"]) == ("gpu-h100", [])
    wanted = {"cpu": 1, "gpus": 1, "nodes": 2, "ranks_per_node": 1, "flavor": "gpu-h100"}
    assert {key: told["record"][key] for key in wanted} == wanted
    assert told["record"]["image_reference"] == house.notebook.image
    until(lambda: _nothing_left(house))  # idle: the operator releases the GPUs
    assert "no engines running" in notebook.cnai("cluster")


def test_paused_its_engine_goes_and_comes_again(house, emptied, notebook):
    told = notebook.python(
        _program("""
run = cnai.train(digits, (40, 0.02), ranks=2, nodes=2, flavor="gpu-h100", name="paused")
until(lambda: (run.step or 0) > 20, run)
run.pause()
until(lambda: run.state is State.PAUSED, run)
print(json.dumps(run.step))
""")
    )
    until(lambda: _nothing_left(house))
    assert "PAUSED" in notebook.cnai("runs")
    assert _nothing_left(house), "looking starts nothing"
    notebook.cnai("scale", "paused", "1")
    assert _nothing_left(house), "a note in the store is enough"
    result = notebook.python(
        _program(f"""
run = cnai.run.find("paused")
run.resume()
result = run.result(180)
assert [e.payload["from_step"] for e in run.events if e.kind is Kind.GENERATION] == [0, {told}]
print(json.dumps(result[:2]))
""")
    )
    assert result == [400, 1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--flavor", "gpu-h100", "--image", "missing"], "the image can't be pulled: .* doesn't exist in its registry"),
        (["--flavor", "gpu-none"], "did not start within 20 s: no node has Nonesuch GPUs"),
    ],
)
def test_what_can_not_start_says_why_and_leaves_nothing(house, emptied, notebook, words, said):
    notebook.write("nothing.py", "")
    ended = notebook.cnai("train", "nothing.py", *words, CNAI_NODE_SECONDS="20")
    assert re.search(f"FAILED.*{said}", ended), ended
    until(lambda: _nothing_left(house))


def test_more_than_the_quota(house, emptied, notebook):
    notebook.write("huge.py", "")
    at_once = notebook.cnai("train", "huge.py", "--flavor", "gpu-h100-x3", "--ranks", "9", "--nodes", "3")
    assert "the cluster asks for 9 GPUs; the quota is 6" in at_once
    assert "huge" not in notebook.cnai("runs", "--limit", "1")
    assert _nothing_left(house)
    told = notebook.python(
        _program("""
first = cnai.train(endless, ranks=2, nodes=2, flavor="gpu-h100-x3")
running(first, 2)
first.scale(7)
until(lambda: "can't scale: " in first.reason, first)
refused, step = first.reason, first.step
until(lambda: first.step > step + 20 and nodes() == [2], first)
kept = [first.state, first.world_size]
second = cnai.train(digits, (10,), ranks=1, flavor="gpu-h100")
try:
    second.result(120)
except cnai.CnaiError as error:
    said = str(error)
left = [engine.engine for engine in cnai.cluster()]
first.stop()
first.wait(60)
print(json.dumps({"refused": refused, "kept": kept, "said": said, "state": second.state,
                  "left": left == [first.record["engine"]]}))
""")
    )
    assert "can't scale: the quota allows 6 GPUs; 6 GPUs in use, 3 GPUs more requested" in told["refused"]
    assert told["kept"] == ["RUNNING", 2]
    assert told["state"] == "FAILED"
    assert told["left"]
    assert "the quota allows 6 GPUs; 6 GPUs in use, 1 GPU more requested" in told["said"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--flavor", "gpu-b200"], "unknown flavor 'gpu-b200'; did you mean"),
        (["--flavor", "gpu-h100", "--ranks", "3", "--nodes", "2"], "3 ranks need 3 nodes of flavor gpu-h100"),
        (["--image", "torhc"], "unknown image 'torhc'; did you mean 'torch'"),
    ],
)
def test_what_makes_no_sense_is_one_line(house, emptied, notebook, words, said):
    notebook.write("nothing.py", "")
    answer = notebook.cnai("train", "nothing.py", *words)
    assert said in answer
    assert answer.count("\n") == 1
    assert _nothing_left(house)
