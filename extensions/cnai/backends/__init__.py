"""Backends: where nodes come from. Backends differ in nothing else; each loads on first use."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from cnai import environment
from cnai.errors import UnknownName

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnai.backends.backend import Backend


def _debug() -> Backend:
    from cnai.backends.debug import DebugBackend

    return DebugBackend()


def _kubernetes() -> Backend:
    from cnai.backends.kubernetes.backend import KubernetesBackend

    return KubernetesBackend()


def _local() -> Backend:
    from cnai.backends.local.backend import LocalBackend

    return LocalBackend()


@cache
def _at(address: str) -> Backend:
    from cnai.backends.address import AddressBackend

    return AddressBackend(address)


_FACTORIES: dict[str, Callable[[], Backend]] = {"debug": _debug, "kubernetes": _kubernetes, "local": _local}
NAMES = tuple(_FACTORIES)


def default() -> str:
    """Return the name of the backend for runs that name none."""
    return environment.BACKEND.get()


def get(name: str) -> Backend:
    """Return a backend by name, or by the address of a Dask scheduler."""
    if "://" in name:
        return _at(name)
    if name not in NAMES:
        raise UnknownName("backend", name, [*NAMES, "tcp://host:port"])
    return _FACTORIES[name]()
