"""The API server as this pod's service account sees it."""

from __future__ import annotations

import os
import ssl
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnai.errors import EngineError

if TYPE_CHECKING:
    import httpx

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_SECONDS = 10


class Refused(EngineError):
    """What the API server said when it refused."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """Asks the API server; the token is read for each question, since kubelet renews the file."""

    def __init__(self, url: str = "", account: Path = ACCOUNT) -> None:
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        self.url = url or f"https://{f'[{host}]' if ':' in host else host}:{port}"
        self._account = account

    def ask(self, path: str, body: dict[str, Any] | None = None, *, method: str = "") -> dict[str, Any]:
        """Return what it answers: to GET, or to POST when there is a body."""
        import httpx

        try:
            token = (self._account / "token").read_text()
            client = self._client
        except OSError:
            raise EngineError(f"this pod has no service account token in {self._account}") from None
        try:
            reply = client.request(
                method or ("POST" if body else "GET"), path, headers={"Authorization": f"Bearer {token}"}, json=body
            )
            if reply.is_error:
                raise Refused(reply.status_code, _message(reply))
            answer: dict[str, Any] = reply.json()
        except (httpx.HTTPError, ValueError) as error:
            raise EngineError(f"{self.url} gives no answer ({type(error).__name__})") from None
        return answer

    @cached_property
    def _client(self) -> httpx.Client:
        import httpx

        secure = self.url.startswith("https")
        trust = ssl.create_default_context(cafile=self._account / "ca.crt") if secure else False
        return httpx.Client(base_url=self.url, timeout=_SECONDS, verify=trust, trust_env=False)


def _message(reply: httpx.Response) -> str:
    """Return why a question was refused; about kinds of objects that it doesn't know the API server writes no JSON."""
    try:
        return str(reply.json()["message"])
    except (ValueError, LookupError, TypeError):
        return reply.text.strip() or reply.reason_phrase
