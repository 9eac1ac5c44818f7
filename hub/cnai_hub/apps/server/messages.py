"""Messages between a viewer's page and a kernel: widgets work, but viewers can't send code, in either wire protocol.

A viewer can set any synced trait of any widget and trigger its callbacks, so authors must treat widget values as
untrusted input.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from jupyter_server.services.kernels.connection.base import deserialize_binary_message, deserialize_msg_from_ws_v1
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnai.foreign import Message

ALLOWED = ("comm_open", "comm_close", "comm_msg", "comm_info_request", "kernel_info_request")
"""Types of messages that a page may send; Voila's own list also has `shutdown_request`."""

CONTROL = "jupyter.widget.control"
"""The only comm that a page opens itself, to request the state of all widgets."""

MOST_UPLOAD_BYTES = 50_000_000
"""Limit of the files that a viewer uploads at once; they travel to the kernel in one message."""

MOST_MESSAGE_BYTES = MOST_UPLOAD_BYTES + (2 << 20)
"""Limit of a message from a page, including its names and headers; a larger one closes the connection."""

_V1 = "v1.kernel.websocket.jupyter.org"
_FAILED = "Something went wrong in this app. Its author can find the reason by running the notebook."


class Refused(Exception):
    """A viewer's message may not be passed to the kernel; the text says why."""


def parse(raw: str | bytes, subprotocol: str | None) -> tuple[str, Message]:
    """Return channel and message of a websocket frame; Refused if it holds no message."""
    try:
        if isinstance(raw, bytes):
            _check_count(raw, subprotocol)
        if subprotocol == _V1:
            channel, parts = deserialize_msg_from_ws_v1(raw)
            header, parent, metadata, content = (json.loads(bytes(part)) for part in parts[:4])
            message = {"header": header, "parent_header": parent, "metadata": metadata, "content": content}
            return channel, {**message, "buffers": [bytes(part) for part in parts[4:]]}
        message = deserialize_binary_message(raw) if isinstance(raw, bytes) else json.loads(raw)
        fields = {key: message.get(key) or {} for key in ("parent_header", "metadata", "content")}
        return message["channel"], {"header": message["header"], **fields, "buffers": message.get("buffers") or []}
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 - attackers can provoke any exception
        raise Refused(f"not a message ({type(error).__name__})") from None


def _check_count(raw: bytes, subprotocol: str | None) -> None:
    """Raise Refused if a message claims more parts than it has bytes for.

    jupyter_server 2.21 trusts the number, so a message of eight bytes can exhaust the memory.
    """
    width: int
    order: Literal["little", "big"]
    width, order = (8, "little") if subprotocol == _V1 else (4, "big")
    if int.from_bytes(raw[:width], order) > len(raw) // width:
        raise Refused("more parts than bytes")


def admit(channel: str, message: Message) -> None:
    """Raise Refused unless a viewer may send this message."""
    try:
        kind, target = message["header"]["msg_type"], message["content"].get("target_name")
    except (KeyError, TypeError, AttributeError):
        raise Refused("no type or content") from None
    if kind not in ALLOWED:
        raise Refused(f"type {kind!r}")
    if channel != "shell":
        raise Refused(f"{kind} on channel {channel!r}")
    if kind == "comm_open" and target != CONTROL:
        raise Refused(f"comm_open of {target!r}")


def for_viewers(parts: list[bytes], sign: Callable[[list[bytes]], bytes]) -> list[bytes] | None:
    """Return a kernel's message (signature, header, parent, metadata, content, buffers) as viewers may see it.

    Return None for sources and warnings, and errors without message and traceback: they reveal the app's internals.
    """
    kind = json.loads(bytes(parts[1])).get("msg_type")
    if kind == "execute_input":
        return None
    content = json.loads(bytes(parts[4])) if kind in {"error", "stream", "execute_reply"} else {}
    if kind == "stream" and content.get("name") == "stderr":
        return None
    if kind != "error" and content.get("status") != "error":
        return parts
    content |= {"ename": "Error", "evalue": _FAILED, "traceback": [_FAILED]}
    shown = [*parts[1:4], json.dumps(content).encode()]
    return [sign(shown), *shown, *parts[5:]]


class ViewerConnection(ZMQChannelsWebsocketConnection):
    """Websocket of a viewer's page to their kernel."""

    def handle_incoming_message(self, incoming_msg: str | bytes) -> None:
        """Pass on a viewer's message if it is allowed.

        Send a new message built from the checked parts, because another parser could read the same bytes differently.
        """
        try:
            channel, message = parse(incoming_msg, self.subprotocol)
            admit(channel, message)
        except Refused as reason:
            self.log.warning("refused a viewer's message: %s", reason)
            return
        if channel in self.channels:
            self.websocket_handler.settings["touched"]()
            self.session.send(self.channels[channel], message, buffers=message.pop("buffers"))

    def on_restart_failed(self) -> None:
        """Close the page's connection after its kernel has died, so that the page notices."""
        super().on_restart_failed()
        self.websocket_handler.close(reason="the kernel has ended")

    def handle_outgoing_message(self, stream: str, outgoing_msg: list[Any]) -> None:
        """Pass on a kernel's message as far as viewers may see it."""
        identities, parts = self.session.feed_identities(outgoing_msg, copy=True)
        shown = for_viewers(parts, self.session.sign)
        if shown is not None:
            super().handle_outgoing_message(stream, [*identities, b"<IDS|MSG>", *shown])
