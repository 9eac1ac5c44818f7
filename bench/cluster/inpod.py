"""Runs in a notebook's pod: `live N`, `nothing`, `bare`, `kill`, `bare-kill`; prints its measurements as JSON lines."""

import json
import os
import sys
import time

import cnai
from cnai.run import warm_up

FLAVOR = "gpu"
WARM_UP_SECONDS = 3.0
ATTEMPTS = 3


def fit(steps):
    """Train the smallest possible model."""
    import torch

    ctx = cnai.context()
    net = torch.nn.Linear(8, 1)
    model, optimizer = ctx.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1))
    for step in ctx.loop(steps):
        ctx.backward(model(torch.ones(4, 8)).mean())
        optimizer.step()
        optimizer.zero_grad()
        ctx.report(step=step)
        time.sleep(0.05 if steps > 100 else 0)


def say(**facts):
    print(json.dumps(facts), flush=True)


def until(found, seconds=300):
    deadline = time.time() + seconds
    while not (value := found()):
        if time.time() > deadline:
            raise TimeoutError
        time.sleep(0.01)
    return value


def train(steps=5, **more):
    """Return a run and the seconds from the call until this process receives the run's first step."""
    start = time.time()
    run = cnai.train(fit, (steps,), ranks=1, flavor=FLAVOR, checkpoint_every=20, **more)
    until(lambda: run.step is not None or run.state.final)
    if run.step is None:
        run.result()
    return run, time.time() - start


def live(times):
    """Measure runs on a live engine."""
    train()[0].wait()
    for _ in range(int(times)):
        run, seconds = train()
        run.wait()
        say(name="live: train → first step", value=seconds)


def nothing(_):
    """Measure a run without an engine, in a kernel that has loaded all modules that `%load_ext cnai` loads."""
    warm_up()
    time.sleep(WARM_UP_SECONDS)
    run, seconds = train()
    run.wait()
    say(name="from nothing: train → first step", value=seconds)


def kill(_):
    """Print when the run's node may be killed, and when the run continues."""
    run, _ = train(100_000)
    until(lambda: run.step > 30)
    say(ready=time.time())
    until(lambda: any(event.generation >= 1 and event.kind == "metric" for event in list(run.events)))
    first = next(event for event in run.events if event.generation >= 1 and event.kind == "metric")
    say(back=first.time)
    run.stop()
    run.wait()


def bare_cluster(image):
    """Return a KubeCluster, a client that has received an answer, and the seconds until then.

    Two handlers of the stock operator race to write a new cluster's phase. If "Pending" is written last, KubeCluster
    waits in vain for "Running" (dask-kubernetes 2026.3.0); such an attempt doesn't count.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return started(image)
        except TimeoutError:
            continue
    return started(image)


def started(image):
    """Start a KubeCluster with the same pods, which run Dask's own programs instead of ours."""
    from dask_kubernetes.operator import KubeCluster
    from distributed import Client

    from cnai import catalog
    from cnai.backends.kubernetes import manifests

    place = manifests.Place(
        namespace=os.environ["CNAI_NAMESPACE"], claim="home", home=os.environ["HOME"], idle_seconds=0
    )
    name = f"bare-{os.urandom(2).hex()}"
    spec = manifests.engine(name, place, catalog.load().flavor(FLAVOR), image, 1)
    pods = spec["spec"]["scheduler"]["spec"], spec["spec"]["worker"]["spec"]
    pods[0]["containers"][0]["args"] = ["dask", "scheduler", "--host", "0.0.0.0"]
    pods[1]["containers"][0]["args"] = ["dask", "worker", "--nthreads", "1", "--name", "$(DASK_WORKER_NAME)"]
    for pod in pods:
        for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
            pod["containers"][0].pop(probe, None)
    start = time.time()
    cluster = KubeCluster(custom_cluster_spec=spec, namespace=place.namespace, quiet=True, resource_timeout=20)
    client = Client(cluster)
    assert client.submit(abs, -1).result() == 1
    return cluster, client, time.time() - start


def bare(image):
    """Measure a bare KubeCluster, from nothing and without cnai."""
    cluster, client, seconds = bare_cluster(image)
    say(name="from nothing: bare KubeCluster → first answer", value=seconds)
    client.close()
    cluster.close()


def bare_kill(image):
    """Print when the bare cluster's node may be killed, and when the new worker has registered."""
    cluster, client, _ = bare_cluster(image)
    workers = lambda: {worker["id"] + address for address, worker in client.scheduler_info()["workers"].items()}  # noqa: E731
    before = workers()
    say(ready=time.time())
    until(lambda: workers() - before)
    say(back=time.time())
    client.close()
    cluster.close()


if __name__ == "__main__":
    {"live": live, "nothing": nothing, "kill": kill, "bare": bare, "bare-kill": bare_kill}[sys.argv[1]](*sys.argv[2:])
