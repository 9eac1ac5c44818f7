"""Login: by password for the person and `guest`, and by one-time links."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jupyterhub.authenticators.shared import SharedPasswordAuthenticator
from jupyterhub.handlers.login import LoginHandler
from traitlets import Unicode

from cnai_hub.local import links

_USED = "This link has expired or has already been used. Log in with your password, or create a new link: cnai-hub link"


class LocalAuthenticator(SharedPasswordAuthenticator):
    """Authenticates by password, or by a one-time link."""

    state = Unicode(config=True, help="The folder with the hub's state.")

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:
        """Return the handlers of the login form and of one-time links."""
        return [*super().get_handlers(app), (r"/link/([^/]*)", LinkHandler)]

    async def authenticate(self, handler: Any, data: dict[str, str]) -> dict[str, object] | None:
        """Return the user that a link, or a name and password, identifies."""
        if token := data.get("link"):
            person = links.use(Path(self.state), token)
            return {"name": person, "admin": person in self.admin_users} if person else None
        # Upstream compares with `compare_digest`, which raises for text beyond ASCII.
        if not data.get("username") or not data.get("password", "").isascii():
            return None
        return await super().authenticate(handler, {"password": "", **data})


class LinkHandler(LoginHandler):
    """Logs in a person who opens an unused link."""

    async def get(self, token: str) -> None:
        """Log in and redirect, or show the login form with the reason."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "no-referrer")
        if user := await self.login_user({"link": token}) or self.current_user:
            self.redirect(self.get_next_url(user))
        else:
            self.set_status(403)
            self.finish(await self._render(login_error=_USED))
