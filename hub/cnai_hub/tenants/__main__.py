"""Prints the manifests that an administrator applies once per cluster; the options are the fields of `Cluster`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import MISSING, fields

from cnai import programs
from cnai.tables import Mistake, build
from cnai_hub.tenants import Cluster, cluster_manifests
from cnai_hub.tenants.operator import NoResources


def main() -> None:
    """Write one JSON list for `kubectl apply --server-side -f -`."""
    parser = argparse.ArgumentParser(prog=f"python -m {programs.TENANTS}", description=__doc__)
    for field in fields(Cluster):
        assert field.default is not MISSING
        several = isinstance(field.default, tuple)
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=str if several else type(field.default),
            nargs="*" if several else None,
            default=list(field.default) if several else field.default,
        )
    try:
        cluster = build(Cluster, vars(parser.parse_args()))
        items = cluster_manifests(cluster)
    except (Mistake, NoResources) as error:
        sys.exit(str(error))
    if not cluster.hub_image:
        sys.stderr.write("the operator's deployment is left out because --hub-image is not given\n")
    json.dump({"apiVersion": "v1", "kind": "List", "items": items}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
