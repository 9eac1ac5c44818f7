"""A port of this machine that leads to a service of the cluster.

On a cluster on this machine, bytes are copied to the service's own address: `kubectl port-forward` carries all
connections in one, and in rare cases forwards nothing more on a connection that stays open, which JupyterLab waits for
forever.
"""

from __future__ import annotations

import asyncio
import subprocess
import threading
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from realcluster import Cluster


@contextmanager
def forwarded(cluster: Cluster, namespace: str, service: str, port: int) -> Iterator[None]:
    """Forward a port of this machine to port 80 of a service, which may appear later."""
    with (
        _copied(cluster, namespace, service, port) if cluster.place else _by_kubectl(cluster, namespace, service, port)
    ):
        yield


@contextmanager
def _copied(cluster: Cluster, namespace: str, service: str, port: int) -> Iterator[None]:
    address: list[str] = []

    def find() -> str:
        if not address:
            address.append(cluster.get(f"service/{service}", "-n", namespace)["spec"]["clusterIP"])
        return address[0]

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(partial(_carry, find), "127.0.0.1", port), loop)
    try:
        server.result()
        yield
    finally:
        asyncio.run_coroutine_threadsafe(_end(server.result()), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _carry(find: Callable[[], str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one connection; one that finds no service is closed, as `kubectl port-forward` does."""
    try:
        far_reader, far_writer = await asyncio.open_connection(await asyncio.to_thread(find), 80)
    except Exception:  # the client sees a closed connection and tries again
        writer.close()
        return
    await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    sink.close()


async def _end(server: asyncio.Server) -> None:
    server.close()
    carried = [each for each in asyncio.all_tasks() if each is not asyncio.current_task()]
    for each in carried:
        each.cancel()
    await asyncio.gather(*carried, return_exceptions=True)


@contextmanager
def _by_kubectl(cluster: Cluster, namespace: str, service: str, port: int) -> Iterator[None]:
    """Run `kubectl port-forward`; start it again when it exits, as it does when the pod is deleted."""
    done = threading.Event()
    process: list[subprocess.Popen[bytes]] = []
    command = [cluster.kubectl_path, "-n", namespace, "port-forward", f"service/{service}", f"{port}:80"]

    def forward() -> None:
        while not done.wait(0.3):
            process[:] = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
            process[0].wait()

    thread = threading.Thread(target=forward, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        while thread.is_alive():
            for each in process:
                each.terminate()
            thread.join(0.5)
