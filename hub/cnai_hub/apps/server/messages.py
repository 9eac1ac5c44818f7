"""Messages between a viewer's page and a kernel: widgets work, code doesn't travel, in either wire protocol.

A viewer can set any synced trait of any widget and fire its callbacks: to an author, widget values are untrusted input.
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
"""Types of messages that a page may send; Voila's own list has `shutdown_request`, too."""

CONTROL = "jupyter.widget.control"
"""The only comm that a page opens itself: it asks for the state of all widgets."""

_V1 = "v1.kernel.websocket.jupyter.org"
_FAILED = "Something went wrong in this app. Its author can find the reason by running the notebook."


class Refused(Exception):
    """What a viewer sent is not for kernels; the message says why."""


def parse(raw: str | bytes, subprotocol: str | None) -> tuple[str, Message]:
    """Return channel and message of what came over the websocket."""
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
    except Exception as error:  # noqa: BLE001 - whatever an attacker makes of it, it's not a message
        raise Refused(f"not a message ({type(error).__name__})") from None


def _check_count(raw: bytes, subprotocol: str | None) -> None:
    """Raise Refused if a message claims more parts than it has room for.

    jupyter_server 2.21 believes the number, and takes all memory for eight bytes that say so.
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

    Sources and warnings are left out (None), errors keep neither message nor traceback: both tell how the app is made.
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
        """Pass on what a viewer may send.

        The message is built anew from what was checked, so that no other reader of the same bytes can see another one.
        """
        try:
            channel, message = parse(incoming_msg, self.subprotocol)
            admit(channel, message)
        except Refused as reason:
            self.log.warning("refused from a viewer: %s", reason)
            return
        if channel in self.channels:
            self.websocket_handler.settings["touched"]()
            self.session.send(self.channels[channel], message, buffers=message.pop("buffers"))

    def handle_outgoing_message(self, stream: str, outgoing_msg: list[Any]) -> None:
        """Pass on what a viewer may see."""
        identities, parts = self.session.feed_identities(outgoing_msg, copy=True)
        shown = for_viewers(parts, self.session.sign)
        if shown is not None:
            super().handle_outgoing_message(stream, [*identities, b"<IDS|MSG>", *shown])
