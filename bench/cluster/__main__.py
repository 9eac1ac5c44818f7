"""`make bench-cluster`: runs hubs and engines in turns on KUBECONFIG's cluster; writes a part of docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import builtimages
import realcluster
import tenancy

from bench.cluster import engines, leftovers, page, spawns

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PARTS = {"spawns": spawns.rows, "engines": engines.rows}


def main() -> None:
    """Run the rounds and write the part of the page."""
    parser = argparse.ArgumentParser(prog="make bench-cluster", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (3)")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="run only these, write no page")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args()
    cluster = realcluster.connect()
    if isinstance(cluster, str):
        sys.exit(cluster)
    start, before, rows = time.monotonic(), leftovers.listing(cluster), []
    with tempfile.TemporaryDirectory() as folder:
        images = builtimages.Images(cluster, Path(folder))
        for name in options.only:
            rows += _printed(PARTS[name](cluster, images, Path(folder), options.rounds))
            tenancy.wait_until_gone(cluster)
        tenancy.leave(cluster)
    rows.append({"name": "left", "value": len(left := leftovers.since(cluster, before))})
    print(*left, sep="\n")
    if set(options.only) == set(PARTS):
        part = page.render(rows, options.rounds, time.monotonic() - start)
        options.page.write_text(page.joined(options.page.read_text(), part))
        print(f"wrote {options.page}")


def _printed(rows: Iterator[dict]) -> Iterator[dict]:
    for row in rows:
        print(json.dumps(row), flush=True)
        yield row


if __name__ == "__main__":
    main()
