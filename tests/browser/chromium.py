"""A real Chromium that reaches loopback only, and remembers what else a page asked for."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import sync_playwright

ARGUMENTS = [
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
PATIENCE_MILLISECONDS = 120_000


def executable() -> str:
    """Return the browser that is installed."""
    for name in (os.environ.get("CNAI_CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"):
        if name and (path := shutil.which(name)):
            return path
    raise RuntimeError("no Chromium in PATH; install Debian's package chromium, or set CNAI_CHROMIUM")


@contextmanager
def chromium():
    """A browser; as root it needs to go without its sandbox."""
    arguments = [*ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=arguments)
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """One person's browser window. `outside` lists requests to anywhere but loopback."""

    def __init__(self, browser, url, **options):
        self.url = url
        self.context = browser.new_context(viewport={"width": 1280, "height": 1000}, **options)
        self.context.set_default_timeout(PATIENCE_MILLISECONDS)
        self.outside: list[str] = []
        self.context.on("request", self._note)
        self.page = self.context.new_page()

    def _note(self, request):
        address = urlsplit(request.url)
        if address.scheme in {"http", "https", "ws", "wss"} and address.hostname != "127.0.0.1":
            self.outside.append(request.url)

    def login(self, name, password, path="/hub/home"):
        """Fill in the login form."""
        self.page.goto(f"{self.url}/hub/login?next={path}")
        self.page.fill("#username_input", name)
        self.page.fill("#password_input", password)
        self.page.click("#login_submit")
        self.page.wait_for_load_state()
        return self.page
