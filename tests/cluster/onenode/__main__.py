"""`python -m onenode up|down|status|build|base|image|stop|start|env`."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from pathlib import Path

from onenode import components, images, life, processes, programs
from onenode.place import ClusterError, Place


def main() -> None:
    """Do what the command line says; an error is one line."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%T", stream=sys.stderr)
    try:
        _do(Place.from_environment(), arguments)
    except ClusterError as error:
        sys.exit(f"cluster: {error}")


def _do(place: Place, arguments: argparse.Namespace) -> None:
    match arguments.verb:
        case "up":
            life.up(place)
            print(_exports(place))
        case "down":
            life.down(place)
        case "status":
            print("\n".join(f"{name:20} {pid or 'stopped'}" for name, pid in life.status(place).items()))
        case "build":
            programs.build(place, arguments.programs or programs.NEEDED)
        case "base":
            print(images.debian(place))
        case "image":
            given = dict(pair.split("=", 1) for pair in arguments.build_arg)
            print(images.build(place, arguments.folder, arguments.name, given))
        case "stop":
            processes.stop(place, arguments.component)
        case "start":
            life.restart(place, arguments.component)
        case "env":
            print(_exports(place))


def _exports(place: Place) -> str:
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in place.settings().items())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="onenode", description="A real one-node Kubernetes on this machine.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help="start what is not running; prints the environment")
    verbs.add_parser("down", help="remove everything but the caches")
    verbs.add_parser("status", help="the components' pids")
    verbs.add_parser("env", help="print the environment for kubectl, buildah and skopeo")
    verbs.add_parser("base", help="make the Debian base image; prints its name")
    build = verbs.add_parser("build", help="build programs that are not in the cache")
    build.add_argument("programs", nargs="*", metavar="program", help=f"one of {', '.join(programs.ALLOWED)}")
    image = verbs.add_parser("image", help="build a folder's Dockerfile and push it; prints its name in pods")
    image.add_argument("folder", type=Path)
    image.add_argument("name", help="for example cnai/notebook:1")
    image.add_argument("--build-arg", action="append", default=[], metavar="KEY=VALUE")
    for verb in ("stop", "start"):
        verbs.add_parser(verb, help=f"{verb} one component").add_argument("component", choices=components.ORDER)
    return parser


if __name__ == "__main__":
    main()
