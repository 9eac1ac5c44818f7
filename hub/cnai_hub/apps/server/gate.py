"""The gate of an app server: it admits only users whom the hub authorizes, and each only to their own kernels."""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from jupyterhub import __version__ as hub_version
from jupyterhub.singleuser.extension import JupyterHubIdentityProvider, JupyterHubOAuthCallbackHandler
from tornado.web import HTTPError, RequestHandler, StaticFileHandler

if TYPE_CHECKING:
    from jupyterhub.services.auth import HubOAuth

_AGAIN_SECONDS = 30


class HubIdentity(JupyterHubIdentityProvider):
    """Identifies the user of a request by asking the hub."""

    def __init__(self, **kwargs: Any) -> None:
        # The server passes both for its own login by token, which this class replaces; `token` can't be set here.
        kwargs.pop("login_handler_class", None)
        kwargs.pop("token", None)
        super().__init__(**kwargs)

    def get_handlers(self) -> list[tuple[Any, ...]]:
        """Return the route that the hub's login redirects to."""
        route = f"{self.hub_auth.base_url}oauth_callback"
        return [(route, JupyterHubOAuthCallbackHandler, {"hub_auth": self.hub_auth})]


def identity(hub_auth: HubOAuth) -> type[HubIdentity]:
    """Return an identity class with this `hub_auth`, because the server creates the instance itself."""

    class Identity(HubIdentity):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs, hub_auth=hub_auth)

    return Identity


class Gate(RequestHandler):
    """Mixin for handlers: it checks login and the right to open this app, then calls the handler's own `prepare`.

    It is needed for all handlers, because Voila's for files, templates, themes and extensions don't check users.
    """

    is_closed = False
    """Whether the viewer's side of the connection has closed."""

    async def prepare(self) -> None:
        """Admit the request, redirect it to the login, or refuse it."""
        user = await self.settings["identity_provider"].get_user(self)
        self.current_user = user
        if user is None:
            if not self._is_navigation():
                raise HTTPError(403)
            self.redirect(self.get_login_url())
            return
        self._keep_to_own_kernel(user.username)
        self.settings["touched"]()
        prepared = super().prepare()
        if prepared is not None:
            await prepared

    def on_finish(self) -> None:
        """Record that a page has arrived."""
        super().on_finish()
        self.settings["kernel_manager"].room.sent(self, arrived=True)

    def on_connection_close(self) -> None:
        """Record that a viewer disconnected before their page arrived."""
        super().on_connection_close()
        self.is_closed = True
        self.settings["kernel_manager"].room.sent(self, arrived=False)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Tell clients when to try again if there is no room."""
        if status_code == HTTPStatus.SERVICE_UNAVAILABLE:
            self.set_header("Retry-After", str(_AGAIN_SECONDS))
        super().write_error(status_code, **kwargs)

    def check_xsrf_cookie(self) -> None:
        """Check the token that keeps other pages from using a viewer's cookie.

        Browsers fetch fonts and modules like data, but without a token. Files that come with Voila are public and don't
        need one; files of the release, which `settings["released_files"]` handles, do.
        """
        shipped = isinstance(self, StaticFileHandler) and not isinstance(self, self.settings["released_files"])
        if not (shipped and self.request.headers.get("Sec-Fetch-Site") == "same-origin"):
            super().check_xsrf_cookie()

    def set_default_headers(self) -> None:
        """Send the installed version of JupyterHub, which the hub compares with its own."""
        super().set_default_headers()
        self.set_header("X-JupyterHub-Version", hub_version)

    def _is_navigation(self) -> bool:
        headers = self.request.headers
        mode = headers.get("Sec-Fetch-Mode", "navigate")
        return self.request.method == "GET" and mode == "navigate" and "Upgrade" not in headers

    def _keep_to_own_kernel(self, viewer: str) -> None:
        """Refuse a path that names another viewer's kernel; check the decoded path, as the handler does."""
        room = self.settings["kernel_manager"].room
        for argument in [*self.path_args, *self.path_kwargs.values()]:
            if room.viewer_of(argument) not in (None, viewer):
                raise HTTPError(403, "this is another viewer's session")


@cache
def gated(handler: type[RequestHandler]) -> type[RequestHandler]:
    """Return a subclass of a handler behind the gate."""
    return type(f"Gated{handler.__name__}", (Gate, handler), {})
