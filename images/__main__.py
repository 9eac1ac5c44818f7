"""`python -m images [image …]`: builds images, parents first, pushes them, and writes them into the catalog."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from images import make, references, sources, values
from images.chain import FOLDER, ImageError, images
from images.engine import ENGINES, Engine, choose


def main() -> None:
    """Run the command line's request; an error is one line."""
    given = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="  %(message)s", stream=sys.stderr)
    try:
        _check(given)
        with tempfile.TemporaryDirectory() as folder:
            options = (*sources.secrets(Path(folder)), *given.build_option)
            engine = Engine(choose(given.engine), options, tuple(given.push_option))
            _make(make.Maker(engine, given.base, given.torch_index, given.fresh), given)
    except ImageError as error:
        sys.exit(f"images: {error}")


def _check(given: argparse.Namespace) -> None:
    """Reject options that would fail only after a build of many minutes."""
    if (given.catalog or given.values) and not given.registry:
        raise ImageError("--catalog and --values write references of pushed images; name a registry with --registry")
    if given.catalog and not given.catalog.is_file():
        raise ImageError(f"--catalog: {given.catalog} is not a file; the usual one is images/catalog.toml")
    if unknown := [name for name in given.images if name not in images()]:
        raise ImageError(f"no image {unknown[0]!r}; the images are: {', '.join(sorted(images()))}")


def _make(maker: make.Maker, given: argparse.Namespace) -> None:
    wheel = make.wheel()
    tag = given.tag or wheel.name.split("-")[1]
    names = given.images or list(maker.known)
    packages = maker.packages(names)
    pushed = {}
    for name in names:
        made = maker.finish(name, packages[name], tag)
        if given.sbom:
            maker.sbom(name, packages[name], given.sbom)
        if given.registry:
            pushed[name] = maker.push(made, given.registry, given.push_to or given.registry)
        print(pushed.get(name, made), flush=True)
    if given.catalog and pushed:
        given.catalog.write_text(references.write(given.catalog.read_text(), pushed))
    if given.values and pushed:
        before = given.values.read_text() if given.values.exists() else ""
        catalog = given.catalog or FOLDER / "catalog.toml"
        given.values.write_text(values.write(before, pushed, catalog.read_text()))


def _address(text: str) -> str:
    return text.rstrip("/")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m images", description="Build cnai's images and push them. Prints the references for pods."
    )
    add = parser.add_argument
    add("images", nargs="*", metavar="image", help="folders in images/ (all)")
    add("--registry", default="", type=_address, help="registry and folder to push to; without it, push nothing")
    add(
        "--push-to",
        default="",
        type=_address,
        help="the registry's address for pushes, if it differs from the cluster's",
    )
    add("--tag", default="", help="tag of the images (cnai's version)")
    add("--catalog", type=Path, help="catalog to write the references into, for example images/catalog.toml")
    add("--values", type=Path, help="Helm values file to write the references into: helm-values.images.yaml")
    add("--sbom", type=Path, metavar="FOLDER", help="folder to write each image's list of contents into (CycloneDX)")
    add("--engine", choices=ENGINES, help="program that builds (the installed one)")
    add("--base", default="", help="Debian 12 image to build on (debian:bookworm-slim)")
    add("--torch-index", default="", metavar="URL", help="index to install PyTorch from, for example one without CUDA")
    add("--fresh", action="store_true", help="build all packages again, on the current Debian with its security fixes")
    add("--build-option", action="append", default=[], metavar="=OPTION", help="extra option for the engine's build")
    add("--push-option", action="append", default=[], metavar="=OPTION", help="extra option for the engine's push")
    return parser


if __name__ == "__main__":
    main()
