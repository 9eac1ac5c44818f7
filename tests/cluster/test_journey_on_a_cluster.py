"""The main workflow on a real cluster, in a real browser: a GPU server, a run, a killed pod, an app for a guest."""

from __future__ import annotations

import os
import re
from pathlib import Path

import helmchart
import hubpod
import pytest
from hubpod import until
from nbformat.v4 import new_code_cell, new_notebook

pytest.importorskip("dask_kubernetes", reason="the extra `kubernetes` is not installed")

from browser.chromium import Visitor, chromium
from browser.test_journey import run_all, shown_step
from cnai_hub import tenants

pytestmark = pytest.mark.browser

SLOW_RUN = """\
def slow(steps=600):
    import time

    import cnai

    ctx = cnai.context()
    for step in ctx.loop(steps):
        ctx.report(loss=1 / step)
        time.sleep(0.1)
    return ctx.step"""


def flavors(product):
    small = {"cpu": 1, "memory_gib": 2}
    kind = {"gpus": 1, "gpu_product": product, "price_per_hour": 3, "groups": ["gpu"]}
    return [
        {"name": "small", "title": "Small", "default": True, **small},
        {"name": "gpu-h100", "title": "One H100", **small, **kind},
    ]


@pytest.fixture(scope="module", params=["imitated", "stock"])
def hub(request, cluster, images, gpu_product, tmp_path_factory):
    """A hub from our imitation of the chart, and from the chart that CNAI_Z2JH_CHART names, installed by helm."""
    helm = helmchart.helm(tmp_path_factory.mktemp("chart")) if request.param == "stock" else None
    catalog = {"image": hubpod.shipped()["custom"]["cnai"]["catalog"]["image"], "flavor": flavors(gpu_product)}
    small_pods = {"custom": {"cnai": {"catalog": catalog, "cpu_share": 0.05, "memory_share": 0.1}}}
    with hubpod.installed(cluster, images, small_pods, helm=helm) as hub:
        hub.operate(images["hub"], hub.person("ada"))
        yield hub


@pytest.fixture(scope="module")
def gpu_product(cluster):
    """The label of the GPUs that the cluster's nodes have."""
    labels = [node["metadata"]["labels"] for node in cluster.get("nodes")["items"]]
    found = [each["nvidia.com/gpu.product"] for each in labels if "nvidia.com/gpu.product" in each]
    if not found:
        pytest.skip("no node of the cluster says which GPUs it has (label nvidia.com/gpu.product)")
    return found[0]


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


def visit(hub, browser):
    """A browser page with timeouts that are long enough for pods."""
    visitor = Visitor(browser, hub.url)
    visitor.context.set_default_timeout(1000 * hubpod.PATIENCE_SECONDS)
    # A forwarded port is unavailable for a moment when a connection breaks, and JupyterLab then shows a dialog.
    lost = visitor.page.get_by_role("dialog", name=re.compile("^Server unavailable"))
    visitor.page.add_locator_handler(lost, lambda dialog: dialog.get_by_role("button", name="Dismiss").click())
    return visitor


def picture(page, name):
    """Save a picture for the docs in the folder that CNAI_PICTURES names."""
    if folder := os.environ.get("CNAI_PICTURES"):
        page.screenshot(path=Path(folder, f"{name}.png"))


@pytest.fixture(scope="module")
def ada(hub, browser):
    """A user who may have GPUs, with a server chosen on the spawn page."""
    name = hub.person("ada")
    visitor = visit(hub, browser)
    page = visitor.login(name, hub.password(name), "/hub/spawn")
    page.get_by_label("One H100").check()
    picture(page, "cluster-spawn")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url(re.compile("/lab"))
    yield visitor
    picture(page, "last")
    assert visitor.outside == []


def write_notebook(hub, name, *cells):
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    notebook.metadata["kernelspec"] = kernel
    headers = {"Authorization": f"token {hub.token}"}
    body = {"type": "notebook", "content": notebook}
    url = f"{hub.url}/user/{hub.person('ada')}/api/contents/notebooks/{name}"
    with hub.api as api:
        api.put(url, json=body, headers=headers).raise_for_status()


def open_notebook(hub, visitor, name):
    page = visitor.page
    page.goto(f"{hub.url}/user/{hub.person('ada')}/lab/tree/notebooks/{name}?reset")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.get_by_text("| Idle").wait_for()
    return page


def engine_pods(hub, component):
    namespace = tenants.namespace_name(hub.person("ada"))
    found = hub.cluster.get("pods", "-n", namespace, "-l", f"dask.org/component={component}")["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def test_the_server_has_the_gpu_that_was_chosen(hub, ada):
    (pod,) = hub.pods(hub.person("ada"))
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_first_notebook_trains_on_two_nodes(hub, ada):
    page = open_notebook(hub, ada, "01-first-run.ipynb")
    run_all(page)
    view = page.locator(".cnai-run").first
    view.wait_for()
    view.scroll_into_view_if_needed()
    nodes = until(lambda: found if len(found := engine_pods(hub, "worker")) == 2 else None, "a pod for each rank")
    own = hub.pods(hub.person("ada"))[0]["spec"]["containers"][0]["image"]
    for pod in nodes:
        container = pod["spec"]["containers"][0]
        assert (container["image"], container["resources"]["limits"]["nvidia.com/gpu"]) == (own, "1")
    until(lambda: "SUCCEEDED" in view.inner_text(), "the run has ended")
    assert shown_step(view) == 230
    page.get_by_text(re.compile(r"^9\d\.\d% of 360 digits")).wait_for()
    picture(page, "cluster-run")


def test_resized_and_a_node_killed_it_goes_on(hub, ada):
    write_notebook(hub, "long.ipynb", f"%load_ext cnai\n{SLOW_RUN}", "%cnai train slow --ranks 2 --checkpoint-every 1s")
    page = open_notebook(hub, ada, "long.ipynb")
    run_all(page)
    view = page.locator(".cnai-run").first
    until(lambda: shown_step(view) >= 20, "step 20")
    view.get_by_role("button", name="+", exact=True).click()
    facts = view.locator(".cnai-facts")
    facts.get_by_text("3 ranks · generation 1").wait_for()
    view.get_by_text("RUNNING", exact=True).wait_for()
    assert len(engine_pods(hub, "worker")) == 3
    step = shown_step(view)
    until(lambda: shown_step(view) >= step + 20, "20 steps later")
    victim = engine_pods(hub, "worker")[0]["metadata"]
    hub.cluster.kubectl(
        "delete", "pod", victim["name"], "-n", victim["namespace"], "--force", "--grace-period=0", "--wait=false"
    )
    facts.get_by_text("generation 2").wait_for()
    view.get_by_text("RUNNING", exact=True).wait_for()
    picture(page, "cluster-resized")
    until(lambda: "SUCCEEDED" in view.inner_text(), "the run has ended")
    assert shown_step(view) == 600


def test_published_for_guest(hub, ada, browser):
    guest = hub.person("guest")
    write_notebook(
        hub, "publish.ipynb", "%load_ext cnai", f"%cnai publish 01-first-run.ipynb --slug digits --share {guest}"
    )
    page = open_notebook(hub, ada, "publish.ipynb")
    run_all(page)
    page.locator(".jp-OutputArea-output").get_by_text("digits").first.wait_for()

    visitor = visit(hub, browser)
    page = visitor.login(guest, hub.password(guest), "/services/apps/")
    page.get_by_text("Read handwritten digits").wait_for()
    page.get_by_role("link", name=re.compile("Open")).or_(page.get_by_role("button", name=re.compile("Open"))).click()
    try:
        page.get_by_text(re.compile(r"I see a \d")).wait_for()
    finally:
        picture(page, "cluster-app")
    assert "%load_ext" not in page.content()
    assert visitor.outside == []


def test_gpus_are_given_back(hub, ada):
    until(lambda: not engine_pods(hub, "worker") and not engine_pods(hub, "scheduler"), "no pod of an engine is left")
