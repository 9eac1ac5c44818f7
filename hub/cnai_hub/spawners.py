"""The spawner of one machine: a notebook server from the catalog, or a published app, as a local process."""

from __future__ import annotations

import asyncio
import os
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, select_autoescape
from jupyterhub.spawner import SimpleLocalProcessSpawner, SpawnException
from traitlets import default

from cnai import catalog, paths
from cnai.errors import CnaiError
from cnai_hub import apps, profiles, roles
from cnai_hub.account import account_home, account_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

APP_PREFIX = "app-"
_LOOK_SECONDS = 0.05

# What a person set for their own programs, beyond what JupyterHub hands on.
_KEPT = (
    "CNAI_CATALOG",
    "CNAI_STORE",
    "CNAI_WORKBENCH",
    "CUDA_HOME",
    "HF_HOME",
    "LANGUAGE",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TORCH_HOME",
    "TZ",
    "XDG_CACHE_HOME",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)


class CatalogSpawner(SimpleLocalProcessSpawner):
    """Starts a notebook server of a chosen image and flavor, or a published app.

    What an app starts is fixed by its server's name and the store of releases, never by options.
    """

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        # An app runs its release and nothing of its viewers', so they needn't be asked whether it may know their names.
        if self.is_app and self.user is not None:
            self.user.settings.setdefault("oauth_no_confirm_list", set()).add(self.oauth_client_id)

    @property
    def is_app(self) -> bool:
        """Tell by its name whether this server is a published app."""
        return self.name.startswith(APP_PREFIX)

    @cached_property
    def _catalog(self) -> catalog.Catalog:
        return catalog.load()

    @default("options_form")
    def _default_options_form(self) -> Callable[[CatalogSpawner], str]:
        return _options_form

    @default("options_from_form")
    def _default_options_from_form(self) -> Callable[[Mapping[str, list[str]]], dict[str, Any]]:
        return profiles.from_form

    @default("apply_user_options")
    def _default_apply_user_options(self) -> Callable[[CatalogSpawner, dict[str, Any]], None]:
        return CatalogSpawner._apply

    @default("server_token_scopes")
    def _default_server_token_scopes(self) -> list[str]:
        return roles.APP_SCOPES if self.is_app else roles.SERVER_SCOPES

    @default("env_keep")
    def _default_env_keep(self) -> list[str]:
        return [*self._env_keep_default(), *_KEPT]

    def offer(self) -> profiles.Offer:
        """Return what the spawn page shows."""
        return profiles.offer(self._catalog, catalog.this_machine(), self.orm_spawner.user_options)

    def _apply(self, options: dict[str, Any]) -> None:
        try:
            self._settle(options)
        except CnaiError as error:
            # JupyterHub has stored the refused options already, and would take them for the next start without options.
            self.orm_spawner.user_options = {}
            raise SpawnException(str(error), reason="options") from None

    def _settle(self, options: dict[str, Any]) -> None:
        if self.is_app:
            self._settle_app(options)
            return
        profile = profiles.choose(options, self._catalog, catalog.this_machine())
        self.cpu_limit = profile.flavor.cpu
        self.mem_limit = int(profile.flavor.memory_gib * 2**30)
        self._chosen = profiles.environment(profile, os.environ.get("CUDA_VISIBLE_DEVICES"))

    def _settle_app(self, options: dict[str, Any]) -> None:
        if options:
            raise CnaiError("an app takes no options; what it starts is fixed by its release")
        command = apps.app_command(self.name, self.user.name)
        # Never a notebook server instead: whoever the app was shared with could run code in it.
        if command is None:
            raise CnaiError(f"{self.user.name} has published no app {self.name.removeprefix(APP_PREFIX)!r}")
        self.cmd = command
        self.args = list[str]()
        self.default_url, self.notebook_dir = "/", ""
        self._chosen = apps.app_environment(self.name, self.user.name)

    def get_env(self) -> dict[str, str]:
        """Return the environment of the server."""
        return {**super().get_env(), "CNAI_HOME": str(paths.home()), **self._chosen}

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        """Add the person's own home folder: on one machine the person is who started the hub."""
        env["USER"] = env["LOGNAME"] = account_name()
        env["HOME"] = account_home()
        env["SHELL"] = os.environ.get("SHELL") or "/bin/sh"
        return env

    def make_preexec_fn(self, name: str) -> None:
        """Run nothing between fork and exec; the working folder is `popen_kwargs['cwd']`."""

    async def start(self) -> tuple[str, int]:
        """Start the process in the person's notebooks, and wait until it listens."""
        self.popen_kwargs = {"cwd": self.notebook_dir or str(paths.home())}
        address: tuple[str, int] = await super().start()
        # JupyterHub would look for it less and less often, and see it seconds after it is there.
        while not await _listens(*address):
            status = await self.poll()
            if status is not None:
                what = "the app" if self.is_app else "the server"
                sentence = f"{what} ended while it started (exit code {status}); the hub's log says why"
                raise SpawnException(sentence, reason="exited", status_code=500)
            await asyncio.sleep(_LOOK_SECONDS)
        return address

    async def wait_for_death(self, timeout: float = 10) -> bool:
        """Wait until the process has ended, looking as often at the end as at the beginning; tell whether it has."""
        deadline = time.monotonic() + timeout
        while not (ended := await self.poll() is not None) and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)
        return ended


async def _listens(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


def _options_form(spawner: CatalogSpawner) -> str:
    return "" if spawner.is_app else render(spawner.offer())


def render(offer: profiles.Offer) -> str:
    """Return the part of the spawn page that shows an offer."""
    folder = paths.shipped("templates/hub")
    environment = Environment(loader=FileSystemLoader(folder), autoescape=select_autoescape())
    return environment.get_template("options.html").render(offer=offer)
