"""`python -m onenode up|down|status|build|base|image|stop|start|env|exec`."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from onenode import components, images, life, processes, programs
from onenode.place import ClusterError, Place

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Run a command; an error becomes one line."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%T", stream=sys.stderr)
    try:
        said = _DO[arguments.verb](Place.from_environment(), arguments)
    except ClusterError as error:
        sys.exit(f"cluster: {error}")
    if isinstance(said, str):
        print(said)


def _up(place: Place, _: argparse.Namespace) -> str:
    life.up(place)
    return _exports(place)


def _status(place: Place, _: argparse.Namespace) -> str:
    return "\n".join(f"{name:20} {pid or 'stopped'}" for name, pid in life.status(place).items())


def _image(place: Place, arguments: argparse.Namespace) -> str:
    given = dict(pair.partition("=")[::2] for pair in arguments.build_arg)
    return images.build(place, arguments.folder, arguments.name, given)


def _exec(place: Place, arguments: argparse.Namespace) -> None:
    if "KUBECONFIG" not in os.environ:
        life.up(place)
        os.environ.update(place.settings())
    os.execvp(arguments.command[0], arguments.command)


def _exports(place: Place) -> str:
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in place.settings().items())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="onenode", description="A real one-node Kubernetes on this machine.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help="start what is not running; prints the environment")
    verbs.add_parser("down", help="remove everything but the caches")
    verbs.add_parser("status", help="the components' pids")
    verbs.add_parser("env", help="print the environment for kubectl and buildah")
    verbs.add_parser("base", help="make the Debian base image; prints its name")
    build = verbs.add_parser("build", help="build programs that are not in the cache")
    build.add_argument("programs", nargs="*", metavar="program", help=f"one of {', '.join(programs.ALLOWED)}")
    image = verbs.add_parser("image", help="build a folder's Dockerfile and push it; prints its name in pods")
    image.add_argument("folder", type=Path)
    image.add_argument("name", help="for example cnai/notebook:1")
    image.add_argument("--build-arg", action="append", default=[], metavar="KEY=VALUE")
    command = verbs.add_parser("exec", help="run a command on KUBECONFIG's cluster, or on ours, started if need be")
    command.add_argument("command", nargs="+")
    for verb in ("stop", "start"):
        verbs.add_parser(verb, help=f"{verb} one component").add_argument("component", choices=components.ORDER)
    return parser


_DO: dict[str, Callable[[Place, argparse.Namespace], object]] = {
    "up": _up,
    "down": lambda place, _: life.down(place),
    "status": _status,
    "env": lambda place, _: _exports(place),
    "exec": _exec,
    "build": lambda place, arguments: programs.build(place, arguments.programs or programs.NEEDED),
    "base": lambda place, _: images.debian(place),
    "image": _image,
    "stop": lambda place, arguments: processes.stop(place, arguments.component),
    "start": lambda place, arguments: life.restart(place, arguments.component),
}

if __name__ == "__main__":
    main()
