"""A viewer's client without a browser: an app's page and its kernel's websocket, in each of Jupyter's protocols."""

from __future__ import annotations

import json
import re
import uuid
from contextlib import contextmanager

from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    deserialize_msg_from_ws_v1,
    serialize_binary_message,
    serialize_msg_to_ws_v1,
)
from websockets.sync.client import connect

V1 = "v1.kernel.websocket.jupyter.org"
PROTOCOLS = ["text", "binary", "v1"]
CHANNELS = ["shell", "control", "stdin", "iopub"]
PATIENCE_SECONDS = 60.0

# Paths that a notebook server has and an app does not.
ABSENT = [
    "api/contents",
    "api/terminals",
    "api/sessions",
    "api/kernels",
    "api/kernelspecs",
    "lab",
    "tree",
    "terminals/1",
]


def message(kind, content, channel="shell"):
    header = {"msg_id": uuid.uuid4().hex, "username": "x", "session": uuid.uuid4().hex, "msg_type": kind}
    return {
        "header": header | {"version": "5.3", "date": "2026-01-01T00:00:00Z"},
        "parent_header": {},
        "metadata": {},
        "content": content,
        "channel": channel,
        "buffers": [],
    }


def execute(code, channel="shell"):
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    return message("execute_request", content, channel)


def attacks(code, channel="shell"):
    """Return messages by which a viewer might run code, or stop kernels."""
    return [
        execute(code, channel),
        message("comm_open", {"comm_id": "a", "target_name": "jupyter.widget", "data": {"code": code}}, channel),
        message("debug_request", {"command": "evaluate", "arguments": {"expression": code}}, channel),
        message("complete_request", {"code": code, "cursor_pos": 3}, channel),
        message("input_reply", {"value": code}, channel),
        message("shutdown_request", {"restart": True}, channel),
    ]


def encode(sent, protocol):
    if protocol == "text":
        return json.dumps(sent)
    if protocol == "binary":
        return serialize_binary_message({**sent, "buffers": [b"x"]})
    parts = [json.dumps(sent[field]).encode() for field in ("header", "parent_header", "metadata", "content")]
    return serialize_msg_to_ws_v1(parts, sent["channel"])


def decode(received, protocol):
    if protocol == "v1":
        channel, parts = deserialize_msg_from_ws_v1(received)
        fields = [json.loads(bytes(part)) for part in parts[:4]]
        header, parent, _, content = fields
        return {"channel": channel, "header": header, "parent_header": parent, "content": content}
    return deserialize_binary_message(received) if isinstance(received, bytes) else json.loads(received)


def kernel_of(page):
    """Return the kernel that an app's page uses."""
    return re.search(r'"kernelId": "([0-9a-f-]{36})"', page)[1]


class Wire:
    """An open websocket to a kernel."""

    def __init__(self, socket, protocol):
        self.socket, self.protocol = socket, protocol

    def send(self, sent):
        self.socket.send(encode(sent, self.protocol))
        return sent["header"]["msg_id"]

    def until(self, kind, parent):
        """Return all messages up to the reply of this type to this message."""
        received = []
        while True:
            received.append(decode(self.socket.recv(timeout=PATIENCE_SECONDS), self.protocol))
            last = received[-1]
            if last["header"]["msg_type"] == kind and last["parent_header"].get("msg_id") == parent:
                return received

    def information(self):
        """Send a request that every viewer may send; its answer shows that all earlier messages have been handled."""
        return self.until("kernel_info_reply", self.send(message("kernel_info_request", {})))


@contextmanager
def wire(client, path, protocol="text"):
    """A websocket with a browser's cookies or a program's token."""
    base = f"{client.base_url.scheme}://{client.base_url.netloc.decode()}"
    headers = {"Cookie": "; ".join(f"{c.name}={c.value}" for c in client.cookies.jar if path.startswith(c.path))}
    if token := client.headers.get("Authorization"):
        headers = {"Authorization": token}
    subprotocols = [V1] if protocol == "v1" else None
    with connect(
        base.replace("http", "ws", 1) + path,
        additional_headers=headers,
        origin=base,
        subprotocols=subprotocols,
        max_size=None,
        proxy=None,
        open_timeout=PATIENCE_SECONDS,
    ) as socket:
        assert socket.subprotocol == (V1 if protocol == "v1" else None)
        yield Wire(socket, protocol)
