"""The spawner of one machine: a notebook server from the catalog, or a published app, as a local process."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyterhub.spawner import LocalProcessSpawner, SimpleLocalProcessSpawner
from traitlets import default

from cnai import catalog, environment, paths
from cnai_hub import pages, profiles
from cnai_hub.local.account import account_home, account_name
from cnai_hub.local.app_processes import app_command, app_environment
from cnai_hub.servers import CatalogServer, NotStarted, listens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LOOK_SECONDS = 0.05

# Variables of the person that their programs need, besides those that JupyterHub passes on.
_KEPT = (
    environment.CATALOG.name,
    environment.STORE.name,
    environment.WORKBENCH.name,
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


def inherited() -> dict[str, str]:
    """Return the variables that servers and apps have from the hub's process and its account."""
    return {name: os.environ[name] for name in _kept() if name in os.environ} | _account()


def _kept() -> list[str]:
    return [*LocalProcessSpawner._env_keep_default(None), *_KEPT]


def _account() -> dict[str, str]:
    name, shell = account_name(), os.environ.get("SHELL") or "/bin/sh"
    return {"USER": name, "LOGNAME": name, "HOME": account_home(), "SHELL": shell}


def own_programs_first(env: Mapping[str, str]) -> dict[str, str]:
    """Return variables with this Python's programs first in PATH, so that `!pip` is the notebook's.

    A person need not have activated the environment in which the hub runs.
    """
    return {**env, "PATH": os.pathsep.join(filter(None, (str(Path(sys.executable).parent), env.get("PATH"))))}


class CatalogSpawner(CatalogServer, SimpleLocalProcessSpawner):
    """Starts a notebook server of a chosen image and flavor, or a published app, as a process."""

    _max_hours: float | None = None
    _ends: float | None = None
    """The time when the flavor's max_hours are over, in seconds since the epoch."""

    @cached_property
    def _catalog(self) -> catalog.Catalog:
        return catalog.load()

    @default("options_form")
    def _default_options_form(self) -> Callable[[CatalogSpawner], str]:
        return _options_form

    @default("env_keep")
    def _default_env_keep(self) -> list[str]:
        return _kept()

    def offer(self) -> profiles.Offer:
        """Return the options of the spawn page."""
        last = profiles.Choice.last(self.orm_spawner.user_options)
        return profiles.offer(self._catalog, catalog.this_machine(), last)

    def settle(self, choice: profiles.Choice) -> None:
        """Configure this notebook server as chosen."""
        profile = profiles.choose(choice, self._catalog, catalog.this_machine())
        self.cpu_limit = profile.flavor.cpu
        self.mem_limit = int(profile.flavor.memory_gib * 2**30)
        self._chosen = profiles.environment(profile, os.environ.get("CUDA_VISIBLE_DEVICES"))
        self._max_hours = profile.flavor.max_hours

    def settle_app(self) -> None:
        """Configure this server as the app that its name denotes."""
        command = app_command(self.name, self.user.name)
        if command is None:
            raise self.no_such_app()
        self.cmd = command
        self.args = list[str]()
        self.default_url, self.notebook_dir = "/", ""
        self._chosen = app_environment(self.name, self.user.name)
        flavor = self._chosen.get(environment.FLAVOR.name)
        self._max_hours = self._catalog.flavor(flavor).max_hours if flavor else None

    def get_env(self) -> dict[str, str]:
        """Return the environment of the server."""
        env = {**super().get_env(), environment.HOME.name: str(paths.home()), **self._chosen}
        return own_programs_first(env)

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        """Set home folder and account name to those of the account that started the hub, which is the person's."""
        return env | _account()

    def make_preexec_fn(self, name: str) -> None:
        """Return None: nothing runs between fork and exec. `popen_kwargs['cwd']` sets the working folder."""

    async def start(self) -> tuple[str, int]:
        """Start the process in the person's notebooks, and wait until it listens."""
        self.popen_kwargs = {"cwd": self.notebook_dir or str(paths.home())}
        address: tuple[str, int] = await super().start()
        # JupyterHub polls with growing intervals, and would find the server seconds after it starts to listen.
        while not await listens(*address):
            status = await self.poll()
            if status is not None:
                what = "the app" if self.is_app else "the server"
                sentence = f"{what} exited while it was starting (exit code {status}); the hub's log says why"
                raise NotStarted(sentence, reason="exited", status_code=500)
            await asyncio.sleep(_LOOK_SECONDS)
        self._ends = time.time() + self._max_hours * 3600 if self._max_hours else None
        return address

    def get_state(self) -> dict[str, Any]:
        """Return the state that the next hub needs to take over this server."""
        return {**super().get_state(), **({"ends": self._ends} if self._ends else {})}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over a server that an earlier hub started."""
        super().load_state(state)
        self._ends = state.get("ends")

    def clear_state(self) -> None:
        """Forget a server that has ended."""
        super().clear_state()
        self._ends = None

    async def poll(self) -> int | None:
        """Return None while the process runs; stop it after its flavor's max_hours."""
        status: int | None = await super().poll()
        if status is not None or not self._ends or time.time() < self._ends:
            return status
        self._ends = None  # stop() calls poll(), too
        self.log.info("%s has run for its flavor's max_hours; stopping it", self._log_name)
        await self.stop()
        return 0

    async def wait_for_death(self, timeout: float = 10) -> bool:
        """Wait until the process has ended, polling at a constant interval; tell whether it has."""
        deadline = time.monotonic() + timeout
        while not (ended := await self.poll() is not None) and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)
        return ended


def _options_form(spawner: CatalogSpawner) -> str:
    return "" if spawner.is_app else pages.options(spawner.offer())
