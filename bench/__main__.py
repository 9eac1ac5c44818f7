"""`make bench`: runs all launchers in turns, then measures the engine's own figures; writes docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from bench import page, work
from bench.cluster.page import kept
from bench.peers import PEERS

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run the rounds and write the page."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="sessions of each launcher (3)")
    parser.add_argument("--warm", type=int, default=3, help="warm launches in each session (3)")
    parser.add_argument(
        "--only", choices=PEERS, nargs="+", default=list(PEERS), help="measure only these launchers, write no page"
    )
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args()

    burns = {5: work.calibrate(5), 50: work.calibrate(50)}
    load = [*map(str, (options.warm, burns[5], 200, burns[50], 60))]
    rows, figures, start = [], [], time.monotonic()
    for number in range(options.rounds):
        # Each round starts with a different launcher.
        turn = number % len(options.only)
        for name in options.only[turn:] + options.only[:turn]:
            rows += [{**row, "round": number} for row in lines("bench.session", name, *load)]
    if set(options.only) != set(PEERS):
        return
    figures += lines("bench.engine")
    written = page.render(rows, figures, burns, options.rounds, time.monotonic() - start)
    options.page.write_text(written + kept(options.page.read_text()))
    print(f"wrote {options.page}")


def lines(module: str, *words: str) -> list[dict]:
    """Run a module in its own process and return the JSON lines that it prints, showing them as they arrive."""
    found = []
    with subprocess.Popen(
        [sys.executable, "-m", module, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout or ():
            if line.startswith("{"):
                found.append(json.loads(line))
                print(" ".join(_short(value) for value in found[-1].values()), flush=True)
    if process.returncode:
        sys.exit(f"{module} {' '.join(words)} failed with exit code {process.returncode}; the page was not written")
    return found


def _short(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
