"""Writes an image's contents as CycloneDX: the packages of Python, Debian and Node.js, and cnai itself.

Runs during the image's build, with only the image's Python: `python sbom.py PREFIX FILE`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

PROXY = Path("/opt/cnai/proxy/node_modules/.package-lock.json")
DEBIAN = "${db:Status-Status} ${binary:Package} ${Version} ${Architecture} ${source:Package}\n"


def main() -> None:
    """List the packages of this environment, and cnai below PREFIX."""
    prefix, file = sys.argv[1:]
    folders = [str(folder) for folder in Path(prefix).glob("lib/python*/site-packages")]
    (own,) = (python(found) for found in distributions(name="cnai", path=folders))
    components = [python(found) for found in distributions()] + debian() + node()
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**own, "type": "application"}},
        "components": sorted(components, key=lambda component: component["bom-ref"]),
    }
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(json.dumps(document, indent=1) + "\n")


def python(found: Distribution) -> dict[str, Any]:
    """Return an installed Python package as a component."""
    name, version = found.metadata["Name"], found.version
    normal = name.lower().replace("_", "-").replace(".", "-")
    component = _component(name, version, f"pkg:pypi/{normal}@{quote(version, safe='')}")
    expression = found.metadata.json.get("license_expression")
    return {**component, "licenses": [{"expression": expression}]} if expression else component


def debian() -> list[dict[str, Any]]:
    """Return the installed Debian packages as components."""
    asked = ["dpkg-query", "--show", f"--showformat={DEBIAN}"]
    lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    found = [line.split()[1:] for line in lines if line.startswith("installed ")]
    return [_debian(*words) for words in found]


def _debian(name: str, version: str, architecture: str, source: str) -> dict[str, Any]:
    name = name.partition(":")[0]
    purl = f"pkg:deb/debian/{quote(name, safe='')}@{quote(version, safe='')}?arch={architecture}"
    return {**_component(name, version, purl), "properties": [{"name": "source", "value": source}]}


def node() -> list[dict[str, Any]]:
    """Return the packages that npm installed as components, without duplicates: npm may install a package twice."""
    packages = json.loads(PROXY.read_text())["packages"] if PROXY.exists() else {}
    found = {(path.rpartition("node_modules/")[2], package["version"]) for path, package in packages.items()}
    return [_component(name, version, f"pkg:npm/{quote(name)}@{version}") for name, version in sorted(found)]


def _component(name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


if __name__ == "__main__":
    main()
