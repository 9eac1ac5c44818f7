"""The common base of both spawners: a notebook server is chosen strictly by form or REST, an app by its name."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from jupyterhub.spawner import SpawnException
from traitlets import HasTraits, default

from cnai.errors import CnaiError
from cnai.publication import SERVER_PREFIX
from cnai_hub import profiles, roles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_CONNECT_SECONDS = 2.0


class NotStarted(SpawnException):
    """A server was not started; the exception has the reason, which JupyterHub's pages show."""

    def __init__(self, sentence: str, *, reason: str, status_code: int = 400) -> None:
        super().__init__(sentence, reason=reason, status_code=status_code)
        # JupyterHub's pages show this attribute; of a plain SpawnException they show only status and class.
        self.jupyterhub_message = sentence


class CatalogServer(HasTraits):
    """The first base of a spawner: a notebook server of a chosen image and flavor, or a published app.

    The server's name and the store of releases determine what an app runs, never options.
    """

    def __init__(self, *args: Any, **traits: Any) -> None:
        super().__init__(*args, **traits)
        # An app runs its release and no code of its viewers, so they need not confirm that it may learn their names.
        if self.is_app and getattr(self.user, "settings", None) is not None:
            self.user.settings.setdefault("oauth_no_confirm_list", set()).add(self.oauth_client_id)

    @property
    def is_app(self) -> bool:
        """Tell by its name whether this server is a published app."""
        return bool(self.name.startswith(SERVER_PREFIX))

    @default("options_from_form")
    def _default_options_from_form(self) -> Callable[[Mapping[str, list[str]]], dict[str, object]]:
        return profiles.from_form

    @default("apply_user_options")
    def _default_apply_user_options(self) -> Callable[[CatalogServer, dict[str, object]], None]:
        return CatalogServer._apply

    @default("server_token_scopes")
    def _default_server_token_scopes(self) -> list[str]:
        return roles.APP_SCOPES if self.is_app else roles.SERVER_SCOPES

    def settle(self, choice: profiles.Choice) -> None:
        """Configure this notebook server as chosen; CnaiError if the choice is not available."""
        raise NotImplementedError

    def settle_app(self) -> None:
        """Configure this server as the app that its name denotes; CnaiError if that app can't start."""
        raise NotImplementedError

    def no_such_app(self) -> CnaiError:
        """Return the error for an app that isn't published.

        Never start a notebook server instead: viewers of the former app could run code in it.
        """
        return CnaiError(f"{self.user.name} has published no app {self.name.removeprefix(SERVER_PREFIX)!r}")

    def _settle(self, options: dict[str, object]) -> None:
        if not self.is_app:
            self.settle(profiles.Choice.of(options))
        elif options:
            raise CnaiError("an app takes no options; what it starts is fixed by its release")
        else:
            self.settle_app()

    def _apply(self, options: dict[str, object]) -> None:
        try:
            self._settle(options)
        except CnaiError as error:
            # JupyterHub has already stored the refused options, and would use them for the next start without options.
            self.user_options = self.orm_spawner.user_options = {}
            raise NotStarted(str(error), reason="options") from None


async def listens(host: str, port: int) -> bool:
    """Tell whether a process accepts connections at this address."""
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
