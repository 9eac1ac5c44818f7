"""Doctor: what people trip over, looked at one by one; a line each says what there is, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnai import backends
from cnai.faces.doctor.report import Check, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Check", "Report", "doctor"]


def doctor() -> Report:
    """Look at this machine, and on Kubernetes at what the cluster lets its person do; starts and changes nothing.

    To see whether the operator answers, a Dask cluster is made that can't have pods, and removed.
    """
    from cnai.faces.doctor import machine

    more = _MORE_LOOKS.get(backends.default(), list)
    return Report([*_look(machine.LOOKS), *_look(more())])


def _at_cluster() -> Iterable[Callable[[], Check]]:
    from cnai.faces.doctor import cluster

    return cluster.looks()


_MORE_LOOKS: dict[str, Callable[[], Iterable[Callable[[], Check]]]] = {"kubernetes": _at_cluster}
"""By backend."""


def _look(looks: Iterable[Callable[[], Check]]) -> Iterable[Check]:
    for look in looks:
        try:
            yield look()
        except Exception as error:  # noqa: BLE001 - one look that fails must not hide what the others find
            yield Check.unknown(look.__name__.strip("_"), f"{type(error).__name__}: {error}")
