"""The workbench on one machine: `cnai-hub run` until Ctrl-C, `cnai-hub demo` once, `cnai-hub link` for another login.

The first `run` starts a server, trains in a notebook and publishes it, so that the printed links open finished work.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnai import environment, paths
from cnai.errors import CnaiError, HubError
from cnai_hub.local import credentials, firstrun, hubprocess, links, ports, processes
from cnai_hub.local.account import person_name
from cnai_hub.local.app_processes import is_published
from cnai_hub.local.client import HubClient
from cnai_hub.local.configuration import GUEST, explain, state_dir
from cnai_hub.local.steps import Steps

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Workbench:
    """A running hub, with its client and secrets."""

    state: Path
    client: HubClient
    secrets: credentials.Credentials
    hub: subprocess.Popen[bytes]
    steps: Steps

    def person_link(self, path: str = "") -> str:
        """Return a link that logs the person in once and opens their notebook."""
        return self.client.url + links.mint(self.state, self.client.person, path or _notebook_path(self.client.person))

    def app_link(self) -> str:
        """Return the address that opens the app, and starts it if necessary."""
        return f"{self.client.url}/services/apps/open/{self.client.person}/{firstrun.SLUG}"


def run() -> int:
    """Run until Ctrl-C."""
    with _workbench(environment.PORT.get()) as workbench:
        (_next_time if firstrun.done(workbench.state) else _first_time)(workbench)
        app = f"app-{firstrun.SLUG}"
        published = is_published(app, workbench.client.person)
        _print_links(workbench, app=published)
        # Start the app after printing the links: the app's link shows a page while it starts.
        if published and (problem := firstrun.start_again(workbench.client, app)):
            workbench.steps.say(f"The app did not start: {problem}")
        workbench.hub.wait()
        raise HubError(f"the hub exited; its log says why: {workbench.state / 'hub.log'}")


def demo() -> int:
    """Do the first run in a temporary home, print the steps, and remove everything."""
    home = Path(tempfile.mkdtemp(prefix="cnai-demo-"))
    os.environ[environment.HOME.name] = str(home)
    os.environ.pop(environment.STORE.name, None)
    try:
        with _workbench(ports.internal(state_dir(), ("public",))["public"]) as workbench:
            steps = workbench.steps
            firstrun.do(workbench.client, workbench.secrets, workbench.state, steps)
            with steps.step("the person's link opens the notebook, curve drawn"):
                firstrun.check_notebook(workbench.person_link())
        with steps.step("nothing is left running"):
            if left := processes.marked(home):
                raise HubError(f"still running: {', '.join(str(process.pid) for process in left)}")
        steps.say(f"All of it worked, in {steps.seconds:.0f} s.")
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return 0


def link() -> int:
    """Print a link that logs the person in once at the running workbench."""
    state = state_dir()
    known = processes.running(state)
    if known is None:
        raise HubError(f"no workbench is running for {paths.home()}; start it with `make run`")
    person = person_name()
    sys.stdout.write(known.url + links.mint(state, person, _notebook_path(person)) + "\n")
    return 0


@contextmanager
def _workbench(port: int) -> Iterator[Workbench]:
    """Start the hub, and stop everything at the end."""
    steps = Steps()
    person, state, url = person_name(), state_dir(), f"http://{ports.LOOPBACK}:{port}"
    with processes.only_one(state, url):
        processes.end(processes.left_by_a_crash(paths.home()))
        ports.claim(port)
        secrets = credentials.load(state)
        client = HubClient(url, person, secrets.workbench_token)
        if os.geteuid() == 0:
            steps.say("Running as root: notebooks and apps can do everything on this machine.")
        with steps.step(f"hub at {url}"):
            hub = hubprocess.start(state, port, client)
        try:
            yield Workbench(state, client, secrets, hub, steps)
        finally:
            with steps.step("hub, servers, apps and engine are stopped"):
                hubprocess.stop(hub)


def _first_time(workbench: Workbench) -> None:
    try:
        firstrun.do(workbench.client, workbench.secrets, workbench.state, workbench.steps)
    except CnaiError as error:
        workbench.steps.say(f"    {error}\n    The workbench is running anyway; the next start tries this again.")


def _next_time(workbench: Workbench) -> None:
    with workbench.steps.step("your notebook server"):
        problem = firstrun.start_again(workbench.client)
    if problem:
        workbench.steps.say(f"    {problem}")


def _notebook_path(person: str) -> str:
    notebook = paths.home() / "notebooks" / firstrun.NOTEBOOK
    return f"/user/{person}/lab" + (f"/tree/{notebook.name}" if notebook.exists() else "")


def _print_links(workbench: Workbench, *, app: bool) -> None:
    say = workbench.steps.say
    say(f"\nReady after {workbench.steps.seconds:.0f} s.\n")
    say(f"  Your notebook (logs you in once):\n    {workbench.person_link()}\n")
    if app:
        say(f"  The app (for others: log in as {GUEST}, password {workbench.secrets.guest_password}):")
        say(f"    {workbench.app_link()}\n")
    say(f"Ctrl-C stops everything. Another link for you: {_command()} link")


def _command() -> str:
    """Return the command that runs this program; in a checkout it is usually not in PATH."""
    beside = Path(sys.executable).with_name("cnai-hub")
    return "cnai-hub" if shutil.which("cnai-hub") or not beside.exists() else str(beside)


def _interrupted(*_: Any) -> None:
    # Ignore further signals: a second Ctrl-C must not interrupt the shutdown and leave processes behind.
    for each in _STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """Run a command; an error becomes one line on standard error and exit code 1."""
    parser = argparse.ArgumentParser(prog="cnai-hub", description=__doc__)
    commands = {"run": run, "demo": demo, "link": link}
    parser.add_argument("command", choices=commands, help="run until Ctrl-C | demo once | link for another login")
    command = commands[parser.parse_args(arguments).command]
    for each in _STOP_SIGNALS:
        if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN:  # respect nohup(1)
            signal.signal(each, _interrupted)
    try:
        return command()
    except KeyboardInterrupt:
        return 0 if command is run else 130
    except (CnaiError, OSError) as error:
        sys.stderr.write(f"cnai: {explain(error)}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
