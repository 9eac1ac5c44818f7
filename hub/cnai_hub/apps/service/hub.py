"""The apps service's client of the hub: users, groups, servers and shares."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import httpx

from cnai.errors import HubError
from cnai.records import Record
from cnai_hub import models

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnai.appwire import AppState

_Read = TypeVar("_Read", bound=Record)

_POLL_SECONDS = 0.3
# The hub itself gives up earlier; on a cluster it may wait for a new node and for pulling the image.
_PATIENCE_SECONDS = 1200.0
_FAILED = "Spawn failed: "


class Hub:
    """The hub's REST API, with the rights of the service that the token belongs to."""

    def __init__(self, api_url: str, token: str) -> None:
        headers = {"Authorization": f"token {token}"}
        # trust_env: don't send requests between two processes of one machine through a proxy from the environment.
        self._http = httpx.AsyncClient(base_url=api_url, headers=headers, timeout=60, trust_env=False)

    async def groups_of(self, user: str) -> set[str] | None:
        """Return a user's groups, None if there is no such user."""
        found = await self._get(models.User, f"/users/{_q(user)}")
        return set(found.groups) if found else None

    async def members_of(self, group: str) -> set[str] | None:
        """Return the users in a group, None if there is no such group."""
        found = await self._get(models.Group, f"/groups/{_q(group)}")
        return set(found.users) if found else None

    async def state_of(self, owner: str, server: str) -> AppState:
        """Return the state of a server."""
        found = await self._get(models.Server, _server(owner, server)) or models.Server()
        if found.pending:
            return "stopping" if found.pending == "stop" else "starting"
        return "running" if found.ready else "stopped"

    async def create(self, owner: str, server: str, title: str) -> None:
        """Create a server unless it exists."""
        if await self._get(models.Server, _server(owner, server)) is None:
            body = {"display_name": title, "user_options": {}}
            await self._ask("PUT", _server(owner, server), body, fine=(409,))  # 409: another request was faster

    async def start(self, owner: str, server: str, title: str) -> None:
        """Request the start of a server, without waiting; do nothing if it is running or pending."""
        if await self.state_of(owner, server) != "stopped":
            return
        body = {"display_name": title, "user_options": {}}
        reply = await self._ask("POST", _server(owner, server), body, fine=(400,))
        if reply.is_error and await self.state_of(owner, server) == "stopped":  # otherwise another request was faster
            raise HubError(f"the app's server did not start: {models.reason(reply)}")

    async def stop(self, owner: str, server: str, *, remove: bool = False) -> None:
        """Stop a server and wait until it has stopped; with `remove`, until it is deleted together with its shares."""
        await self._ask("DELETE", _server(owner, server), {"remove": True} if remove else None, fine=(404,))
        await self._until(owner, server, "stopped")
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while remove and await self._get(models.Server, _server(owner, server)):
                await asyncio.sleep(_POLL_SECONDS)

    async def wait_ready(self, owner: str, server: str, progress: Callable[[str], None]) -> None:
        """Wait until a starting server is ready; HubError if it doesn't start."""
        state = await self._until(owner, server, "running", "stopped", progress=progress)
        if state == "stopped":
            raise HubError(f"the app's server did not start: {await self.why_failed(owner, server)}")

    async def why_failed(self, owner: str, server: str) -> str:
        """Return why a server's last start failed, from the last event of the hub's progress stream."""
        reply = await self._ask("GET", f"{_server(owner, server)}/progress", fine=(400, 404), accept="*/*")
        lines = [line.removeprefix("data:") for line in reply.text.splitlines() if line.startswith("data:")]
        message = models.read(models.SpawnProgress, lines[-1]).message if lines else ""
        return message.removeprefix(_FAILED) or "the hub's log says why"

    async def shared_with(self, owner: str, server: str) -> set[str]:
        """Return the users who may open a server besides its owner."""
        shares = await self._shares(f"/shares/{_q(owner)}/{_q(server)}")
        return {share.user.name for share in shares if share.user}

    async def share(self, owner: str, server: str, users: set[str]) -> None:
        """Let exactly these users open a server, but not start it: users who may start it may choose what it runs."""
        before = await self.shared_with(owner, server)
        for user in sorted(before - users):
            await self._ask("PATCH", f"/shares/{_q(owner)}/{_q(server)}", {"user": user})
        access = [f"access:servers!server={owner}/{server}"]
        for user in sorted(users - before):
            await self._ask("POST", f"/shares/{_q(owner)}/{_q(server)}", {"user": user, "scopes": access})

    async def _until(
        self, owner: str, server: str, *wanted: AppState, progress: Callable[[str], None] | None = None
    ) -> AppState:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while (state := await self.state_of(owner, server)) not in wanted:
                    if progress:
                        progress(f"the app's server is {state}")
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise HubError(f"the app's server is still {state} after {_PATIENCE_SECONDS:g} s") from None
        return state

    async def _shares(self, path: str) -> list[models.Share]:
        shares: list[models.Share] = []
        while True:
            # With this media type, JupyterHub returns every list in pages of the same form.
            accept = "application/jupyterhub-pagination+json"
            page = await self._get(models.Shares, f"{path}?offset={len(shares)}", accept)
            shares += page.items if page else ()
            if not page or page.is_last:
                return shares

    async def _get(self, kind: type[_Read], path: str, accept: str = "application/json") -> _Read | None:
        """Return the hub's response, None if the object doesn't exist."""
        reply = await self._ask("GET", path, fine=(404,), accept=accept)
        return None if reply.status_code == 404 else models.read(kind, reply.content)

    async def _ask(
        self, method: str, path: str, body: Any = None, *, fine: tuple[int, ...] = (), accept: str = "application/json"
    ) -> httpx.Response:
        try:
            reply = await self._http.request(method, path, json=body, headers={"Accept": accept})
        except httpx.HTTPError as error:
            raise HubError(f"the hub does not answer ({type(error).__name__})") from None
        if reply.is_error and reply.status_code not in fine:
            raise HubError(f"the hub refused ({reply.status_code}): {models.reason(reply)}")
        return reply


def _server(owner: str, server: str) -> str:
    return f"/users/{_q(owner)}/servers/{_q(server)}"


def _q(name: str) -> str:
    return quote(name, safe="")
