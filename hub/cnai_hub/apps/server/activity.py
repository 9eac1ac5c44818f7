"""Activity: an app server reports its last use to the hub, so that the hub can stop unused servers."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from datetime import UTC, datetime

from tornado.httpclient import AsyncHTTPClient, HTTPError

log = logging.getLogger(__name__)


class Activity:
    """Remembers the last use and reports it from time to time."""

    def __init__(self, url: str, token: str, server_name: str) -> None:
        self._url, self._token, self._server_name = url, token, server_name
        self._last = time.time()
        self._reported = 0.0

    def touch(self) -> None:
        """Record that the app is in use now."""
        self._last = time.time()

    async def report(self) -> None:
        """Report the last use to the hub, unless it has been reported."""
        last = self._last
        if last <= self._reported:
            return
        when = datetime.fromtimestamp(last, UTC).isoformat().replace("+00:00", "Z")
        body = {"servers": {self._server_name: {"last_activity": when}}, "last_activity": when}
        headers = {"Authorization": f"token {self._token}", "Content-Type": "application/json"}
        try:
            await AsyncHTTPClient().fetch(self._url, method="POST", headers=headers, body=json.dumps(body))
            self._reported = last
        except (HTTPError, OSError) as error:
            log.warning("the hub did not take the activity report: %s", error)

    async def report_forever(self, every_seconds: float) -> None:
        """Report at a regular interval, forever."""
        while True:
            await self.report()
            await asyncio.sleep(every_seconds)
