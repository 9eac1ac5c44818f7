"""Run a notebook in a person's server, as their browser would, and save it there with its outputs.

The kernel keeps running and stays connected to the notebook, so people who open it find its variables and live widgets.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING
from urllib.parse import quote

from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from cnai.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnai.foreign import Message, Notebook
    from cnai_hub.local.client import HubClient

CELL_SECONDS = 600.0
_LONGEST_MESSAGE = 256 * 2**20


def run_notebook(hub: HubClient, path: str, progress: Callable[[int, int], None]) -> None:
    """Run all code cells of a notebook and save it; call `progress` with the numbers of finished and of all cells."""
    notebook = hub.in_server("GET", f"contents/{quote(path)}?type=notebook")["content"]
    request = {"path": path, "name": path, "type": "notebook", "kernel": {"name": _kernel_name(notebook)}}
    session = hub.in_server("POST", "sessions", request)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]
    problem = asyncio.run(_run_cells(hub, session["kernel"]["id"], cells, progress))
    body = {"type": "notebook", "format": "json", "content": notebook}
    hub.in_server("PUT", f"contents/{quote(path)}", body)
    if problem:
        raise problem


def _kernel_name(notebook: Notebook) -> str:
    return str(notebook["metadata"].get("kernelspec", {}).get("name") or "python3")


async def _run_cells(
    hub: HubClient, kernel: str, cells: list[Notebook], progress: Callable[[int, int], None]
) -> HubError | None:
    """Run cells until one raises, and return the error."""
    request = HTTPRequest(f"{hub.websocket_url}/api/kernels/{kernel}/channels", headers=hub.headers)
    socket = await websocket_connect(request, max_message_size=_LONGEST_MESSAGE)
    outputs = Outputs()
    try:
        for number, cell in enumerate(cells):
            progress(number, len(cells))
            await _run_cell(socket, cell, outputs)
        progress(len(cells), len(cells))
    except HubError as error:
        return error
    finally:
        socket.close()
    return None


async def _run_cell(socket: WebSocketClientConnection, cell: Notebook, outputs: Outputs) -> None:
    source = "".join(cell["source"])
    request = _execute_request(source)
    # Mark the cell as trusted, as if its reader had run it; otherwise JupyterLab hides all outputs but plain text.
    cell.setdefault("metadata", {})["trusted"] = True
    cell["outputs"], cell["execution_count"] = outputs.begin(), None
    await socket.write_message(json.dumps(request))
    reply: Message = {}
    idle = False
    while not (reply and idle):
        try:
            text = await asyncio.wait_for(socket.read_message(), CELL_SECONDS)
        except TimeoutError:
            raise HubError(f"cell {_first_line(source)!r} sent no message for {CELL_SECONDS:g} s") from None
        if text is None:
            raise HubError("the notebook server closed the connection while the notebook was running")
        message = json.loads(text)
        kind, content = message["header"]["msg_type"], message["content"]
        if message["parent_header"].get("msg_id") != request["header"]["msg_id"]:
            continue
        if kind == "execute_reply":
            reply, cell["execution_count"] = content, content.get("execution_count")
        idle = idle or (kind == "status" and content["execution_state"] == "idle")
        outputs.take(kind, content)
    if reply["status"] != "ok":
        raise HubError(f"cell {_first_line(source)!r} raised {reply.get('ename')}: {reply.get('evalue')}")


def _execute_request(source: str) -> Message:
    header = {"msg_id": uuid.uuid4().hex, "username": "", "session": uuid.uuid4().hex, "version": "5.3"}
    content = {"code": source, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
    return {
        "header": {**header, "msg_type": "execute_request", "date": ""},
        "parent_header": {},
        "metadata": {},
        "content": {**content, "user_expressions": {}},
        "channel": "shell",
        "buffers": [],
    }


def _first_line(source: str) -> str:
    return source.strip().splitlines()[0][:60]


class Outputs:
    """Outputs of cells in the format of notebooks, collected from a kernel's messages."""

    def __init__(self) -> None:
        self._current: list[Notebook] = []
        self._shown: dict[str, list[Notebook]] = {}
        self._clear_next = False

    def begin(self) -> list[Notebook]:
        """Return a new list, which collects the next cell's outputs."""
        self._current, self._clear_next = [], False
        return self._current

    def take(self, kind: str, content: Message) -> None:
        """Add the output that a message contains, if any."""
        if kind == "update_display_data":
            for output in self._shown.get(content.get("transient", {}).get("display_id"), []):
                output.update(data=content["data"], metadata=content["metadata"])
        elif kind == "clear_output":
            self._clear_next = bool(content.get("wait"))
            if not self._clear_next:
                self._current.clear()
        elif kind in {"stream", "display_data", "execute_result", "error"}:
            if self._clear_next:
                self._current.clear()
                self._clear_next = False
            self._add(kind, content)

    def _add(self, kind: str, content: Message) -> None:
        last = self._current[-1] if self._current else {}
        if kind == "stream" and last.get("output_type") == "stream" and last["name"] == content["name"]:
            last["text"] += content["text"]
            return
        output = {"output_type": kind, **{key: value for key, value in content.items() if key != "transient"}}
        self._current.append(output)
        if display_id := content.get("transient", {}).get("display_id"):
            self._shown.setdefault(display_id, []).append(output)
