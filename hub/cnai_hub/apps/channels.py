"""A kernel client that doesn't miss replies.

A coroutine that waits on a ZeroMQ socket is woken by a change of the socket's file descriptor. jupyter_client bypasses
the asyncio socket when it sends (`Session.send` creates a shadow of it), which may consume that change without waking
the coroutine. This happens when a cell prints into an ipywidgets Output while it runs: nbclient then sends on the
channel on which it waits for the cell's reply, and once in a few dozen times it waits forever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import zmq
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from traitlets import Type
from traitlets.config import Config

if TYPE_CHECKING:
    from cnai.foreign import Message


class WakingChannel(AsyncZMQSocketChannel):
    """Channel that checks for new messages after each send."""

    def send(self, msg: Message) -> None:
        """Send a message."""
        super().send(msg)
        self.socket.get(zmq.EVENTS)  # this also wakes coroutines that wait on the socket


class WakingClient(AsyncKernelClient):
    """Kernel client with a WakingChannel for requests and replies."""

    shell_channel_class = Type(WakingChannel)


def waking() -> Config:
    """Return the configuration that makes kernel managers use WakingClient."""
    return Config({"AsyncKernelManager": {"client_factory": WakingClient}})
