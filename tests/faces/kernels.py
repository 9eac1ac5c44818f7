"""A real kernel, driven as a notebook drives it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from queue import Empty

from jupyter_client.manager import KernelManager

WIDGET = "application/vnd.jupyter.widget-view+json"


@dataclass
class Cell:
    """What one executed cell gave back."""

    status: str
    stdout: str = ""
    stderr: str = ""
    result: dict = field(default_factory=dict)
    displays: list[dict] = field(default_factory=list)
    error: str = ""


class Kernel:
    """One kernel process; `messages` are all that it published so far, also between cells."""

    def __init__(self, cwd, env):
        self._manager = KernelManager()
        self._manager.start_kernel(cwd=str(cwd), env=env)
        self.client = self._manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)
        self.messages: list[dict] = []

    def interrupt(self):
        """Interrupt as the stop button of a notebook does."""
        self._manager.interrupt_kernel()

    def send(self, code):
        """Start a cell without waiting for it."""
        return self.client.execute(code)

    def run(self, code, timeout=180):
        """Execute a cell and return what it gave back."""
        sent = self.send(code)
        self.until(lambda m: of(m, sent, "status") and m["content"]["execution_state"] == "idle", timeout)
        return self.cell(sent)

    def cell(self, sent):
        """Return what a finished cell gave back."""
        reply = self.client.get_shell_msg(timeout=60)
        while reply["parent_header"]["msg_id"] != sent:
            reply = self.client.get_shell_msg(timeout=60)
        cell = Cell(reply["content"]["status"])
        for message in self.messages:
            content = message["content"]
            if of(message, sent, "stream"):
                setattr(cell, content["name"], getattr(cell, content["name"]) + content["text"])
            elif of(message, sent, "execute_result"):
                cell.result = content["data"]
            elif of(message, sent, "display_data"):
                cell.displays.append(content["data"])
            elif of(message, sent, "error"):
                cell.error = "\n".join(content["traceback"])
        return cell

    def until(self, wanted, timeout=120):
        """Read messages until one is wanted; returns it."""
        deadline = time.monotonic() + timeout
        while True:
            assert time.monotonic() < deadline, [m["msg_type"] for m in self.messages[-20:]]
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except Empty:
                continue
            self.messages.append(message)
            if wanted(message):
                return message

    def complete(self, code):
        """Return what the Tab key offers at the end of the code."""
        sent = self.client.complete(code)
        reply = self.client.get_shell_msg(timeout=60)
        while reply["parent_header"]["msg_id"] != sent:
            reply = self.client.get_shell_msg(timeout=60)
        content = reply["content"]
        return [code[: content["cursor_start"]] + match for match in content["matches"]]

    def close(self):
        self.client.stop_channels()
        self._manager.shutdown_kernel(now=True)


def of(message, sent, kind):
    return message["parent_header"].get("msg_id") == sent and message["msg_type"] == kind
