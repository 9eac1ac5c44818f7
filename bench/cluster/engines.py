"""Measures the time from `%cnai train` (with and without an engine) and from a killed node to the next step."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import workplace
from tenancy import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from realcluster import Cluster

PROGRAM = Path(__file__).with_name("inpod.py")
PLACE = f"{workplace.HOME}/bench.py"
LIVE = 5
PODS = ["bare", "notebook"]


def rows(cluster: Cluster, images: Mapping[str, str], folder: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """Yield seconds, for our engine and a bare KubeCluster in turns."""
    # The default time, because an engine that is about to end accepts no new run.
    stay = {"CNAI_IDLE_SECONDS": "60"}
    with workplace.notebook(cluster, images["notebook"], folder, stay) as notebook, notebook.operator():
        notebook.run("sh", "-c", f"cat > {PLACE}", given=PROGRAM.read_text())
        # The notebook's image has no dask-kubernetes.
        bare = notebook.beside("bare", images["hub"])
        for number in range(rounds):
            parts = [(notebook, "nothing"), (bare, "bare"), (notebook, "kill"), (bare, "bare-kill")]
            for place, part in parts[:: -1 if number % 2 else 1]:
                for row in (_killing if "kill" in part else _measured)(place, part, images["notebook"]):
                    yield {**row, "round": number}
                _alone(notebook)
            yield from ({**row, "round": number} for row in _measured(notebook, "live", str(LIVE)))
            _alone(notebook)


def _measured(notebook: workplace.Notebook, *part: str) -> list[dict[str, Any]]:
    code, output = notebook.run("python", PLACE, *part)
    if code:
        raise SystemExit(f"{' '.join(part)} failed:\n{output}")
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def _killing(notebook: workplace.Notebook, part: str, image: str) -> Iterator[dict[str, Any]]:
    """Kill the node as soon as the program prints that it is ready."""
    command = ["exec", "-n", notebook.namespace, notebook.pod, "--", "python", PLACE, part, image]
    with subprocess.Popen(
        [notebook.cluster.kubectl_path, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        times: dict[str, float] = {}
        output = []
        for line in process.stdout or ():
            output.append(line)
            if line.startswith("{"):
                times |= json.loads(line)
                if "killed" not in times:
                    times["killed"] = _kill(notebook)
    if "back" not in times:
        raise SystemExit(f"{part} failed:\n{''.join(output)}")
    name = "killed node → next step" if part == "kill" else "killed node → bare Dask worker is back"
    yield {"name": name, "value": times["back"] - times["killed"]}


def _kill(notebook: workplace.Notebook) -> float:
    [node] = notebook.get("pods", "-l", "dask.org/component=worker")
    killed = time.time()
    words = ("delete", "pod", node["metadata"]["name"], "-n", notebook.namespace)
    notebook.cluster.kubectl(*words, "--force", "--grace-period=0", "--wait=false")
    return killed


def _alone(notebook: workplace.Notebook) -> None:
    """Wait until only the two pods of the bench itself are left."""
    notebook.run("cnai", "cluster", "stop")
    until(lambda: sorted(each["metadata"]["name"] for each in notebook.get("pods")) == PODS)
