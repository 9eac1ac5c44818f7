"""A kernel client that doesn't sleep through a reply.

Who waits on a ZeroMQ socket in asyncio is woken by a change of the socket's file descriptor. jupyter_client sends past
the asyncio socket (`Session.send` makes a shadow of it), which may use up that change without telling who waits.
It happens when a cell prints into an ipywidgets Output while it runs: nbclient then sends on the channel on which it
waits for the cell's reply, and in one of some dozens of times waits forever.
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
    """Channel that looks after each send whether something has arrived."""

    def send(self, msg: Message) -> None:
        """Send a message."""
        super().send(msg)
        self.socket.get(zmq.EVENTS)  # asking an asyncio socket also wakes who waits on it


class WakingClient(AsyncKernelClient):
    """Kernel client with such a channel for requests and replies."""

    shell_channel_class = Type(WakingChannel)


def waking() -> Config:
    """Return the configuration that makes kernel managers use this client."""
    return Config({"AsyncKernelManager": {"client_factory": WakingClient}})
