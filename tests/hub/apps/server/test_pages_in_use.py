"""How many pages of an app may be open at once: nobody who uses one loses it, and whoever comes too late reads so."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import pytest

from hub.apps.appserver import PATH, serving
from hub.apps.wire import PATIENCE_SECONDS, Wire, kernel_of, message, wire

TICK = """\
import ipywidgets
from IPython.display import display
button, seen = ipywidgets.Button(description="Tick"), ipywidgets.Label("0")
button.on_click(lambda _: setattr(seen, "value", str(int(seen.value) + 1)))
display(button, seen)"""

# The flavor `small`, which an app has by default: 8 pages, of which 6 for one account.
SMALL = {"MEM_LIMIT": str(2 << 30)}
TOGETHER, OF_ONE = 8, 6


@dataclass
class Visit:
    """An open page: its button, and its websocket."""

    button: str
    socket: Wire

    def press(self):
        """Press the button, and return what the page then shows."""
        click = {"comm_id": self.button, "data": {"method": "custom", "content": {"event": "click"}}}
        shown = self.socket.until("comm_msg", self.socket.send(message("comm_msg", click)))[-1]
        return shown["content"]["data"]["state"]["value"]


@contextmanager
def opened(client, page):
    """Be the script of a page that was loaded."""
    assert page.status_code == 200, page.text
    button = re.search(r'"model_id": ?"([0-9a-f]{32})"', page.text)[1]
    with wire(client, f"{PATH}api/kernels/{kernel_of(page.text)}/channels") as socket:
        yield Visit(button, socket)


@pytest.fixture(scope="module")
def account(tmp_path_factory, starts_processes):
    """Return what opens a client for an account of an app server that holds few pages."""
    with serving(tmp_path_factory.mktemp("served"), TICK, **SMALL) as account:
        yield account


def at_once(clients):
    """Load pages at the same moment; return what the button of each showed when all were loaded, or the refusal."""
    everybody = threading.Barrier(len(clients), timeout=PATIENCE_SECONDS)

    def use(client):
        everybody.wait()
        page = client.get(PATH)
        with opened(client, page) if page.status_code == 200 else nullcontext() as visit:
            everybody.wait()
            shown = visit.press() if visit else page.status_code
            everybody.wait()
        return shown

    with ThreadPoolExecutor(len(clients)) as pool:
        return list(pool.map(use, clients))


def test_six_people_of_one_account(account):
    guest = account("guest")
    with ExitStack() as open_pages:
        pages = [open_pages.enter_context(opened(guest, guest.get(PATH))) for _ in range(6)]
        assert [page.press() for page in pages] == ["1"] * 6


def test_of_more_at_once_than_may_be_some_get_a_page_that_stays(account):
    """The count includes kernels that are being started."""
    found = at_once([account("eve") for _ in range(OF_ONE + 3)])
    assert sorted(map(str, found)) == ["1"] * OF_ONE + ["503"] * 3


def test_whoever_comes_too_late_reads_what_to_do(account):
    guest, ada, eve = account("guest"), account("ada"), account("eve")
    with ExitStack() as open_pages:
        enter = open_pages.enter_context
        last = ExitStack()
        pages = [enter(opened(guest, guest.get(PATH))) for _ in range(OF_ONE - 1)]
        enter(last).enter_context(opened(guest, guest.get(PATH)))
        refused = guest.get(PATH)
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert "Your account has 6 pages of this app open" in refused.text
        assert "close one" in refused.text
        pages += [enter(opened(ada, ada.get(PATH))) for _ in range(TOGETHER - OF_ONE)]
        refused = eve.get(PATH)
        assert refused.status_code == 503
        assert "All 8 pages of this app are in use" in refused.text
        # A page that is closed makes room; so does one that is loaded again.
        last.close()
        pages.append(enter(opened(eve, eve.get(PATH))))
        assert [page.press() for page in pages] == ["1"] * TOGETHER
