"""A spawner that survives an outage of the API server; KubeSpawner ends the hub after most of a minute."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
from kubernetes_asyncio.client.rest import ApiException
from kubespawner import KubeSpawner

if TYPE_CHECKING:
    from kubespawner.reflector import ResourceReflector

_AGAIN_SECONDS = 1.0
_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500


class PatientSpawner(KubeSpawner):
    """A spawner whose reflectors wait for the API server without a time limit."""

    async def _start_reflector(
        self, kind: str, reflector_class: type[ResourceReflector], replace: bool = False, **more: Any
    ) -> ResourceReflector:
        return await super()._start_reflector(kind, _patient(reflector_class), replace=replace, **more)


def _patient(reflector: type[ResourceReflector]) -> type[ResourceReflector]:
    class Patient(reflector):
        """Repeats a list request until it succeeds; each watch begins with a list request."""

        async def _list_and_update(self, resource_version: str | None = None) -> str:
            away = False
            while True:
                try:
                    found: str = await super()._list_and_update(resource_version)
                except (ApiException, aiohttp.ClientError, TimeoutError) as error:
                    status = getattr(error, "status", None) or _SERVER_ERROR
                    if status < _SERVER_ERROR and status != _TOO_MANY_REQUESTS:
                        raise
                    if not away:
                        self.log.warning("no %s: the API server does not answer (%s); asking again", self.kind, error)
                    away = True
                    await asyncio.sleep(_AGAIN_SECONDS)
                else:
                    if away:
                        self.log.info("%s: the API server answers again", self.kind)
                    return found

    return Patient
