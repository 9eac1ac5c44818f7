"""One session: a fresh Python process that has imported torch, like a notebook, and launches the work several times."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

FIRST_STEPS = 20
TRIES = 3
"""Sometimes a rank under torchrun aborts while its interpreter exits; such a launch is counted and repeated."""


def main() -> None:
    """Print one JSON row per launch: `peer warm-launches burn5 steps5 burn50 steps50`."""
    name, launches, *rest = sys.argv[1:]
    burn5, steps5, burn50, steps50 = map(int, rest)
    os.environ.update(OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo", TORCH_CPP_LOG_LEVEL="ERROR")
    with tempfile.TemporaryDirectory() as home:
        os.environ["CNAI_HOME"] = home
        import torch  # noqa: F401 # a notebook that defines a model has imported it

        from bench.meter import Meter
        from bench.peers import PEERS

        meter, peer = Meter(), PEERS[name]()
        if hasattr(peer, "prepare"):
            peer.prepare()
            meter.settle()
        try:
            plan = [("cold", FIRST_STEPS, 0), *[("warm", FIRST_STEPS, 0)] * int(launches)]
            plan += [
                (f"{label} ms", steps, burn)
                for label, steps, burn in ((5, steps5, burn5), (50, steps50, burn50))
                if steps
            ]
            for number, (kind, steps, burn) in enumerate(plan):
                for again in range(TRIES):
                    try:
                        row = _launch(meter, peer, kind, steps, burn, Path(home) / f"out-{number}")
                    except RuntimeError as error:
                        print(error, file=sys.stderr)
                        continue
                    print(json.dumps({**row, "failed_before": again}), flush=True)
                    break
                else:
                    sys.exit(f"{name} failed {TRIES} times in a row")
        finally:
            peer.close()
            meter.close()


def _launch(meter: object, peer: object, kind: str, steps: int, burn: int, out: Path) -> dict[str, object]:
    cpu, load, start = meter.seconds(), os.getloadavg()[0], time.time()
    peer.launch(str(out), steps, burn)
    total = time.time() - start
    time.sleep(0.3)  # counts processes that are still ending as part of this launch
    rank = json.loads(out.read_text())
    return {
        "peer": peer.name,
        "kind": kind,
        "first": rank["first"] - start,
        "total": total,
        "cpu": meter.seconds() - cpu,
        "step_ms": 1e3 * statistics.median(rank["durations"][steps // 5 :]),
        "step_cpu_ms": rank["cpu_ms"],
        "load": load,
    }


if __name__ == "__main__":
    main()
