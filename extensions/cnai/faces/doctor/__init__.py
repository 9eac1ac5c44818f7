"""Doctor: checks for common problems; each check reports its finding and the remedy in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnai import backends
from cnai.faces.doctor.report import Check, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Check", "Report", "doctor"]


def doctor() -> Report:
    """Check this machine, and on Kubernetes also the cluster as this person may use it; starts and changes nothing.

    The operator's check creates a Dask cluster that can't have pods, and removes it.
    """
    from cnai.faces.doctor import machine

    more = _MORE_LOOKS.get(backends.default(), list)
    return Report([*_look(machine.LOOKS), *_look(more())])


def _at_cluster() -> Iterable[Callable[[], Check]]:
    from cnai.faces.doctor import cluster

    return cluster.looks()


_MORE_LOOKS: dict[str, Callable[[], Iterable[Callable[[], Check]]]] = {"kubernetes": _at_cluster}
"""Additional checks by backend."""


def _look(looks: Iterable[Callable[[], Check]]) -> Iterable[Check]:
    for look in looks:
        try:
            yield look()
        except Exception as error:  # noqa: BLE001 - a check that fails must not hide the findings of the others
            yield Check.unknown(look.__name__.strip("_"), f"{type(error).__name__}: {error}")
